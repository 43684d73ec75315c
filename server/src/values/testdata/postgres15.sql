-- Made the files beside it with PostgreSQL 15: psql -f postgres15.sql
set timezone='America/St_Johns';
create table t(a bool,b int2,c float4,d float8,e numeric(30,6),f text,g bytea,h date,i time,j timestamp,k timestamptz,l interval,m uuid,n text[],o numeric(30,6)[]);
insert into t values
(true,-32768,0.1,0.1,123.456,'a	b\c"d'',','\x00ff','2024-02-29','03:04:05.5','2024-01-02 03:04:05.123456','2024-07-01 00:00:00+00','1 year 2 mons -3 days 04:05:06.7','a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11','{a,"b c",NULL,"",null,"NULL","q\"\\"}','{1.5,NULL,-0.000001}'),
(false,0,1e20,1e20,-0.000001,'','','0044-03-15 BC','24:00:00','infinity','-infinity','-1 mons +3 days -00:00:01',null,'{}','{}'),
(null,null,'NaN','-Infinity',0,E'\\.',null,'infinity','00:00:00','0044-03-15 12:00 BC','0044-03-15 12:00 BC','00:00:00',null,'{"{a,b}"}',null),
(null,1,1.25e-7,123456789012345678,999999999999999999999999.999999,E'\r\n\b\f\v',null,'-infinity',null,'1582-10-04 00:00:00.1','1850-01-01 00:00:00','-25:00:00.000001',null,null,null),
(null,1,123456,1e15,10000,'NULL',null,'5000-01-01',null,'9999-12-31 23:59:59.999999','20000-01-01 00:00:00','178 years 11 mons -1 days',null,'{a}','{0,10000,1e20}'),
(null,1,1234567,0.0001,0.1,'\N',null,'0001-01-01',null,'0001-01-01','2024-03-10 03:30:00','1 day','00000000-0000-0000-0000-000000000000','{" x","y ","t	ab"}','{99999999}'),
(null,1,3.4028235e38,1.7976931348623157e308,1e23,' lead',null,null,null,null,null,'-1 years',null,null,null),
(null,1,1e-45,5e-324,12345678.9,null,null,null,null,null,null,'1 mon 1 day',null,null,null),
(null,1,-0.0,0.00001,1.000001,'x',null,null,null,null,null,'999 days 100:00:00',null,null,null);
\copy t to 'postgres15.text'
\copy t to 'postgres15.csv' csv
\copy t to 'postgres15.binary' binary
