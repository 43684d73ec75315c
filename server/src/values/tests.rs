use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    DictionaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, RecordBatch, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, IntervalMonthDayNano, Schema, SchemaRef, i256,
};
use catalog::SqlType;
use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;
use crate::types::{TYPE_KEY, field};

fn text_of(field: &Field, array: &ArrayRef, style: Style) -> Vec<Option<String>> {
    let writer = ColumnWriter::new(field, array, WireFormat::Text, style).unwrap();
    (0..array.len())
        .map(|row| {
            (!writer.is_null(row)).then(|| {
                let mut out = Vec::new();
                writer.write(row, &mut out).unwrap();
                String::from_utf8(out).unwrap()
            })
        })
        .collect()
}

fn shown(array: impl Array + 'static) -> Vec<String> {
    let array: ArrayRef = Arc::new(array);
    let field = Field::new("c", array.data_type().clone(), true);
    text_of(&field, &array, Style::default())
        .into_iter()
        .map(|v| v.unwrap_or_else(|| "NULL".to_owned()))
        .collect()
}

fn bytes_of(field: &Field, array: &ArrayRef) -> Vec<u8> {
    let writer = ColumnWriter::new(field, array, WireFormat::Binary, Style::default()).unwrap();
    let mut out = Vec::new();
    writer.write(0, &mut out).unwrap();
    out
}

#[test]
fn numbers_print_as_postgres_prints_them() {
    assert_eq!(
        shown(Int64Array::from(vec![
            0,
            7,
            -10,
            12_345,
            i64::MIN,
            i64::MAX
        ])),
        [
            "0",
            "7",
            "-10",
            "12345",
            "-9223372036854775808",
            "9223372036854775807"
        ]
    );
    assert_eq!(
        shown(UInt64Array::from(vec![u64::MAX])),
        ["18446744073709551615"]
    );
    assert_eq!(
        shown(Float64Array::from(vec![
            0.0,
            -0.0,
            1.0,
            0.1,
            1.5e300,
            1e15,
            123_456_789_012_345.0,
            1e14,
            0.0001,
            0.00001,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -2.5,
        ])),
        [
            "0",
            "-0",
            "1",
            "0.1",
            "1.5e+300",
            "1e+15",
            "123456789012345",
            "100000000000000",
            "0.0001",
            "1e-05",
            "NaN",
            "Infinity",
            "-Infinity",
            "-2.5"
        ]
    );
    assert_eq!(
        shown(Float32Array::from(vec![0.1, 1e6, 123_456.0, 1.25e-7])),
        ["0.1", "1e+06", "123456", "1.25e-07"]
    );
    let rounded = text_of(
        &Field::new("c", DataType::Float64, true),
        &(Arc::new(Float64Array::from(vec![0.1 + 0.2, 1.0 / 3.0, 100.0])) as ArrayRef),
        Style {
            float_digits: 0,
            ..Style::default()
        },
    );
    assert_eq!(
        rounded.into_iter().flatten().collect::<Vec<_>>(),
        ["0.3", "0.333333333333333", "100"]
    );
    let decimals = |scale, values: Vec<i128>| {
        shown(
            Decimal128Array::from(values)
                .with_precision_and_scale(38, scale)
                .unwrap(),
        )
    };
    assert_eq!(
        decimals(2, vec![0, 5, -5, 100, 12_345]),
        ["0.00", "0.05", "-0.05", "1.00", "123.45"]
    );
    assert_eq!(decimals(0, vec![-7]), ["-7"]);
    assert_eq!(decimals(-3, vec![0, 12]), ["0", "12000"]);
    assert_eq!(
        decimals(
            0,
            vec![10i128.pow(38) - 1, 10i128.pow(19), 10i128.pow(20) + 5]
        ),
        [
            "99999999999999999999999999999999999999",
            "10000000000000000000",
            "100000000000000000005"
        ]
    );
    let wide = Decimal256Array::from(vec![
        i256::from_i128(-10i128.pow(37)) * i256::from_i128(1000),
    ])
    .with_precision_and_scale(76, 3)
    .unwrap();
    assert_eq!(shown(wide), ["-10000000000000000000000000000000000000.000"]);
}

/// Packed as `numeric_send` of PostgreSQL 15 packs them.
#[test]
fn numerics_pack_as_postgres_packs_them() {
    let packed = |value: i128, scale: i8| {
        let array = Decimal128Array::from(vec![value])
            .with_precision_and_scale(38, scale)
            .unwrap();
        let f = Field::new("c", array.data_type().clone(), true);
        bytes_of(&f, &(Arc::new(array) as ArrayRef))
            .chunks(2)
            .map(|c| i16::from_be_bytes([c[0], c[1]]))
            .collect::<Vec<_>>()
    };
    assert_eq!(packed(0, 2), [0, 0, 0, 2]);
    assert_eq!(packed(12_345, 2), [2, 0, 0, 2, 123, 4500]);
    assert_eq!(packed(-12_345, 2), [2, 0, 0x4000, 2, 123, 4500]);
    assert_eq!(packed(5, 4), [1, -1, 0, 4, 5]);
    assert_eq!(packed(5, 6), [1, -2, 0, 6, 500]);
    assert_eq!(packed(10_000, 0), [1, 1, 0, 0, 1]);
    assert_eq!(packed(12, -3), [2, 1, 0, 0, 1, 2000]);
    assert_eq!(packed(100_000_001, 4), [3, 1, 0, 4, 1, 0, 1]);
}

#[test]
fn dates_and_times_print_in_the_session_zone() {
    assert_eq!(
        shown(Date32Array::from(vec![
            0,
            10_957,
            -1,
            -719_529,
            i32::MAX,
            i32::MIN,
            2_932_897
        ])),
        [
            "1970-01-01",
            "2000-01-01",
            "1969-12-31",
            "0002-12-31 BC",
            "infinity",
            "-infinity",
            "10000-01-01"
        ]
    );
    assert_eq!(
        shown(Time64MicrosecondArray::from(vec![
            0,
            3_661_500_000,
            86_400_000_000
        ])),
        ["00:00:00", "01:01:01.5", "24:00:00"]
    );
    assert_eq!(
        shown(TimestampMicrosecondArray::from(vec![
            0,
            -1,
            1_500_000,
            i64::MAX
        ])),
        [
            "1970-01-01 00:00:00",
            "1969-12-31 23:59:59.999999",
            "1970-01-01 00:00:01.5",
            "infinity"
        ]
    );
    let zoned = |tz: Tz, micros: i64| {
        let array = TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC");
        let f = Field::new("c", array.data_type().clone(), true);
        text_of(
            &f,
            &(Arc::new(array) as ArrayRef),
            Style {
                time_zone: tz,
                ..Style::default()
            },
        )
        .remove(0)
        .unwrap()
    };
    assert_eq!(zoned(Tz::UTC, 0), "1970-01-01 00:00:00+00");
    assert_eq!(zoned(Tz::Asia__Kolkata, 0), "1970-01-01 05:30:00+05:30");
    assert_eq!(
        zoned(Tz::America__New_York, 1_720_000_000_000_000),
        "2024-07-03 05:46:40-04"
    );
    let interval = |months, days, nanoseconds| {
        let v = IntervalMonthDayNano {
            months,
            days,
            nanoseconds,
        };
        shown(IntervalMonthDayNanoArray::from(vec![Some(v), None]))
    };
    assert_eq!(interval(0, 0, 0), ["00:00:00", "NULL"]);
    assert_eq!(
        interval(14, 3, 14_706_789_000_000)[0],
        "1 year 2 mons 3 days 04:05:06.789"
    );
    assert_eq!(interval(0, -1, 7_380_000_000_000)[0], "-1 days +02:03:00");
    assert_eq!(
        interval(-1, 3, -1_000_000_000)[0],
        "-1 mons +3 days -00:00:01"
    );
}

#[test]
fn lists_structs_and_dictionaries_print() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None, Some(3)]),
        Some(vec![]),
        None,
    ]);
    assert_eq!(shown(list.clone()), ["{1,NULL,3}", "{}", "NULL"]);
    let f = Field::new("c", list.data_type().clone(), true);
    assert_eq!(PgType::of(&f).oid, 1007);
    let words = StringArray::from(vec!["a b", "", "null", "q\"\\", "plain"]);
    let element = Arc::new(field("element", &SqlType::Text, true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([5]);
    let list = ListArray::new(element, offsets, Arc::new(words), None);
    assert_eq!(shown(list), [r#"{"a b","","null","q\"\\",plain}"#]);

    let fields = vec![
        Field::new("n", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ];
    let composite = StructArray::new(
        fields.into(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(StringArray::from(vec![Some("a\"\n"), Some("b")])),
        ],
        None,
    );
    let f = Field::new("c", composite.data_type().clone(), true);
    assert_eq!(PgType::of(&f).oid, 3802);
    assert_eq!(
        shown(composite),
        [r#"{"n":1,"t":"a\"\n"}"#, r#"{"n":null,"t":"b"}"#]
    );

    let nested = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1)]), None]);
    let outer = ListArray::new(
        Arc::new(Field::new("item", nested.data_type().clone(), true)),
        arrow::buffer::OffsetBuffer::from_lengths([2]),
        Arc::new(nested),
        None,
    );
    assert_eq!(shown(outer), ["{{1},NULL}"]);
    let dictionary: DictionaryArray<Int32Type> =
        vec![Some("x"), None, Some("x")].into_iter().collect();
    assert_eq!(shown(dictionary), ["x", "NULL", "x"]);
}

#[test]
fn catalog_types_have_their_own_oids() {
    let tagged = |tag: &str, ty| {
        Field::new("c", ty, true).with_metadata([(TYPE_KEY.to_owned(), tag.to_owned())].into())
    };
    assert_eq!(PgType::of(&tagged("oid", DataType::UInt32)).oid, 26);
    assert_eq!(PgType::of(&tagged("regclass", DataType::Utf8)).oid, 2205);
    assert_eq!(PgType::of(&tagged("name", DataType::Utf8)).oid, 19);
    assert_eq!(PgType::of(&tagged("char", DataType::Utf8)).oid, 18);
    assert_eq!(PgType::of(&Field::new("c", DataType::UInt32, true)).oid, 20);
    let array: ArrayRef = Arc::new(UInt32Array::from(vec![u32::MAX]));
    assert_eq!(bytes_of(&tagged("oid", DataType::UInt32), &array), [255; 4]);
}

fn read_one(sql: &SqlType, text: &str) -> Result<ArrayRef> {
    let mut reader = of_type(sql, Tz::Europe__Berlin)?;
    reader.text(text)?;
    reader.finish()
}

/// The value as it prints after it was read.
fn reread(sql: &SqlType, text: &str) -> String {
    let array = read_one(sql, text).unwrap();
    text_of(&field("c", sql, true), &array, Style::default())
        .remove(0)
        .unwrap()
}

fn refused(sql: &SqlType, text: &str) -> &'static str {
    read_one(sql, text).unwrap_err().state().0
}

#[test]
fn text_is_read_by_postgres_rules() {
    assert_eq!(reread(&SqlType::Bool, " Yes "), "t");
    assert_eq!(refused(&SqlType::Bool, "maybe"), "22P02");
    assert_eq!(reread(&SqlType::Int4, " 42 "), "42");
    assert_eq!(refused(&SqlType::Int2, "32768"), "22003");
    assert_eq!(refused(&SqlType::Int8, "1.0"), "22P02");
    assert_eq!(reread(&SqlType::Float8, "-infinity"), "-Infinity");
    assert_eq!(refused(&SqlType::Float8, "1e999"), "22003");
    let numeric = SqlType::Numeric {
        precision: 6,
        scale: 2,
    };
    assert_eq!(reread(&numeric, "1.005"), "1.01");
    assert_eq!(reread(&numeric, "-.004"), "0.00");
    assert_eq!(reread(&numeric, "12e2"), "1200.00");
    assert_eq!(refused(&numeric, "9999.995"), "22003");
    assert_eq!(refused(&numeric, "1e400000000"), "22003");
    assert_eq!(reread(&numeric, "1e-400000000"), "0.00");
    assert_eq!(refused(&numeric, "NaN"), "22003");
    assert_eq!(refused(&numeric, "1.2.3"), "22P02");
    assert_eq!(reread(&SqlType::Date, "2024-02-29"), "2024-02-29");
    assert_eq!(reread(&SqlType::Date, "01/31/2024"), "2024-01-31");
    assert_eq!(reread(&SqlType::Date, "0044-03-15 BC"), "0044-03-15 BC");
    assert_eq!(refused(&SqlType::Date, "2023-02-29"), "22008");
    assert_eq!(refused(&SqlType::Date, "soon"), "22007");
    assert_eq!(
        reread(&SqlType::Time, "04:05:06.0000007"),
        "04:05:06.000001"
    );
    assert_eq!(refused(&SqlType::Time, "25:00"), "22007");
    assert_eq!(
        reread(&SqlType::Timestamp, "2024-01-02T03:04:05Z"),
        "2024-01-02 03:04:05"
    );
    let tz = &SqlType::Timestamptz;
    assert_eq!(
        reread(tz, "2024-01-02 03:04:05+02"),
        "2024-01-02 01:04:05+00"
    );
    assert_eq!(reread(tz, "2024-01-02 03:04:05"), "2024-01-02 02:04:05+00");
    assert_eq!(
        reread(tz, "2024-07-02 03:04:05 Asia/Kolkata"),
        "2024-07-01 21:34:05+00"
    );
    assert_eq!(reread(tz, "2024-03-31 02:30:00"), "2024-03-31 01:30:00+00");
    assert_eq!(
        reread(&SqlType::Interval, "1 year 2 mons -3 days 04:05:06.7"),
        "1 year 2 mons -3 days +04:05:06.7"
    );
    assert_eq!(reread(&SqlType::Interval, "1.5 days"), "1 day 12:00:00");
    assert_eq!(
        reread(&SqlType::Interval, "P1Y2DT3H"),
        "1 year 2 days 03:00:00"
    );
    assert_eq!(reread(&SqlType::Interval, "90 minutes ago"), "-01:30:00");
    assert_eq!(refused(&SqlType::Interval, "3 apples"), "22007");
    assert_eq!(
        reread(&SqlType::Uuid, "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    );
    assert_eq!(refused(&SqlType::Jsonb, "{\"a\":}"), "22P02");
    assert_eq!(reread(&SqlType::Bytea, "\\x00fF"), "\\x00ff");
    assert_eq!(reread(&SqlType::Bytea, "a\\\\\\001"), "\\x615c01");
    assert_eq!(refused(&SqlType::Bytea, "\\x0"), "22P02");
    assert_eq!(reread(&SqlType::Varchar(2), "ab  "), "ab");
    assert_eq!(refused(&SqlType::Varchar(2), "abc"), "22001");
    let ints = SqlType::Array(Box::new(SqlType::Int4));
    assert_eq!(reread(&ints, "{1, null ,3}"), "{1,NULL,3}");
    assert_eq!(refused(&ints, "{{1},{2}}"), "0A000");
    assert_eq!(refused(&ints, "{1,}"), "22P02");
    assert_eq!(refused(&ints, "1,2"), "22P02");
}

fn decode(
    options: &CopyOptions,
    schema: &SchemaRef,
    pieces: &[&[u8]],
) -> Result<Option<RecordBatch>> {
    let mut decoder = Decoder::new(options.clone(), Arc::clone(schema))?;
    let mut batches = Vec::new();
    for piece in pieces {
        batches.extend(decoder.feed(piece)?.into_iter().map(|p| p.batch));
    }
    batches.extend(decoder.finish()?.map(|p| p.batch));
    let Some(first) = batches.first() else {
        return Ok(None);
    };
    Ok(Some(concat_batches(&first.schema(), &batches)?))
}

fn two_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("n", &SqlType::Int4, true),
        field("t", &SqlType::Text, true),
    ]))
}

fn rows(batch: Option<RecordBatch>) -> Vec<String> {
    let Some(batch) = batch else {
        return Vec::new();
    };
    let columns: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(f, c)| text_of(f, c, Style::default()))
        .collect();
    (0..batch.num_rows())
        .map(|r| {
            let cells: Vec<_> = columns
                .iter()
                .map(|c| c[r].clone().unwrap_or_else(|| "NULL".to_owned()))
                .collect();
            cells.join("|")
        })
        .collect()
}

#[test]
fn text_format_escapes_nulls_and_end_marker() {
    let o = CopyOptions::new(CopyFormat::Text);
    let data = b"1\ta\\tb\\x41\\101\\\\\n2\t\\N\n\\N\t\\\n\n3\tx\n\\.\nignored";
    let got = rows(decode(&o, &two_columns(), &[data]).unwrap());
    assert_eq!(got, ["1|a\tbAA\\", "2|NULL", "NULL|\n", "3|x"]);
    let crlf = rows(decode(&o, &two_columns(), &[b"1\ta\r\n2\tb\r\n"]).unwrap());
    assert_eq!(crlf, ["1|a", "2|b"]);
}

#[test]
fn csv_tells_quoted_from_null() {
    let mut o = CopyOptions::new(CopyFormat::Csv);
    o.header = Header::Match;
    let data = b"n,t\n1,\"a,\"\"b\"\"\nc\"\n2,\n3,\"\"\n4,x\"y\"z\n";
    let got = rows(decode(&o, &two_columns(), &[data]).unwrap());
    assert_eq!(got, ["1|a,\"b\"\nc", "2|NULL", "3|", "4|xyz"]);
    let wrong = decode(&o, &two_columns(), &[b"t,n\n"]).unwrap_err();
    assert_eq!(wrong.state().0, "22P04");
    o.header = Header::None;
    o.escape = b'\\';
    let got = rows(decode(&o, &two_columns(), &[b"1,\"a\\\"b\\\\\"\n"]).unwrap());
    assert_eq!(got, ["1|a\"b\\"]);
    o.force_null = Columns::All;
    o.force_not_null = Columns::Only(vec![1]);
    let got = rows(decode(&o, &two_columns(), &[b"\"\",\n"]).unwrap());
    assert_eq!(got, ["NULL|"]);
}

#[test]
fn copy_errors_name_line_and_column() {
    let o = CopyOptions::new(CopyFormat::Csv);
    let report = |data: &[u8]| {
        let r = decode(&o, &two_columns(), &[data]).unwrap_err().report();
        (r.state.0, r.detail.unwrap_or_default())
    };
    assert_eq!(
        report(b"1,a\nx,b\n"),
        ("22P02", "line 2, column \"n\"".to_owned())
    );
    assert_eq!(report(b"1\n"), ("22P04", "line 1".to_owned()));
    assert_eq!(report(b"1,a,b\n"), ("22P04", "line 1".to_owned()));
    assert_eq!(report(b"1,\"a\n"), ("22P04", "line 1".to_owned()));
    assert_eq!(
        report(b"1,\xff\n"),
        ("22021", "line 1, column \"t\"".to_owned())
    );
    let mut small = o.clone();
    small.max_row = 10;
    let long = decode(&small, &two_columns(), &[b"1,aaaaaaaaaaaaaaaaaa"]).unwrap_err();
    assert_eq!(long.state().0, "54000");
}

#[test]
fn binary_garbage_is_refused() {
    let o = CopyOptions::new(CopyFormat::Binary);
    let head = [b"PGCOPY\n\xff\r\n\0".as_slice(), &[0; 8]].concat();
    let refuse = |tail: &[u8]| {
        decode(&o, &two_columns(), &[&head, tail])
            .unwrap_err()
            .state()
            .0
    };
    assert_eq!(
        decode(&o, &two_columns(), &[b"hello"])
            .unwrap_err()
            .state()
            .0,
        "22P04"
    );
    assert_eq!(refuse(&[0, 1, 0, 0, 0, 4, 0, 0, 0, 1]), "22P04");
    assert_eq!(
        refuse(&[0, 2, 0, 0, 0, 3, 0, 0, 1, 255, 255, 255, 255]),
        "22P03"
    );
    assert_eq!(refuse(&[0, 2, 0, 0, 0, 4]), "22P04");
    assert_eq!(refuse(&[0xff, 0xff, 1]), "22P04");
    assert_eq!(refuse(&[0, 2, 0x80, 0, 0, 0]), "22P04");
}

fn every_type() -> Vec<SqlType> {
    let mut types = vec![
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric {
            precision: 38,
            scale: 9,
        },
        SqlType::Text,
        SqlType::Varchar(40),
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Jsonb,
    ];
    types.push(SqlType::Array(Box::new(SqlType::Text)));
    types.push(SqlType::Array(Box::new(SqlType::Timestamptz)));
    types
}

prop_compose! {
    fn row()(
        int in any::<i64>(),
        float in any::<f64>(),
        unscaled in -(10i128.pow(38) - 1)..10i128.pow(38),
        text in "[ -~\t\n\r\\\\\"',äß€😀]{0,12}",
        bytes in proptest::collection::vec(any::<u8>(), 0..12),
        micros in any::<i64>(),
        nulls in any::<u32>(),
    ) -> (i64, f64, i128, String, Vec<u8>, i64, u32) {
        (int, float, unscaled, text, bytes, micros, nulls)
    }
}

type Row = (i64, f64, i128, String, Vec<u8>, i64, u32);

#[expect(
    clippy::cast_possible_truncation,
    reason = "any value of the narrow type will do"
)]
fn batch_of(rows: &[Row]) -> RecordBatch {
    let types = every_type();
    let fields: Vec<Field> = types
        .iter()
        .enumerate()
        .map(|(i, ty)| field(&format!("c{i}"), ty, true))
        .collect();
    fn cells<T>(rows: &[Row], at: usize, of: impl Fn(&Row) -> T) -> Vec<Option<T>> {
        rows.iter()
            .map(|r| (r.6 >> at & 1 == 0).then(|| of(r)))
            .collect()
    }
    let stamp = |r: &Row| r.5 / 50; // within the years both sides know
    let lists = |values: ArrayRef, element: &SqlType| -> ArrayRef {
        let offsets = arrow::buffer::OffsetBuffer::from_lengths(rows.iter().map(|_| 1));
        Arc::new(ListArray::new(
            Arc::new(field("element", element, true)),
            offsets,
            values,
            None,
        ))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(cells(rows, 0, |r| r.0 % 2 == 0))),
        Arc::new(Int16Array::from(cells(rows, 1, |r| r.0 as i16))),
        Arc::new(Int32Array::from(cells(rows, 2, |r| r.0 as i32))),
        Arc::new(Int64Array::from(cells(rows, 3, |r| r.0))),
        Arc::new(Float32Array::from(cells(rows, 4, |r| r.1 as f32))),
        Arc::new(Float64Array::from(cells(rows, 5, |r| r.1))),
        Arc::new(
            Decimal128Array::from(cells(rows, 6, |r| r.2))
                .with_precision_and_scale(38, 9)
                .unwrap(),
        ),
        Arc::new(StringArray::from(cells(rows, 7, |r| r.3.clone()))),
        Arc::new(StringArray::from(cells(rows, 8, |r| r.3.clone()))),
        Arc::new(BinaryArray::from_iter(cells(rows, 9, |r| r.4.clone()))),
        Arc::new(Date32Array::from(cells(rows, 10, |r| {
            (r.0 as i32) % 2_400_000
        }))),
        Arc::new(Time64MicrosecondArray::from(cells(rows, 11, |r| {
            r.5.rem_euclid(86_400_000_000)
        }))),
        Arc::new(TimestampMicrosecondArray::from(cells(rows, 12, stamp))),
        Arc::new(TimestampMicrosecondArray::from(cells(rows, 13, stamp)).with_timezone("UTC")),
        Arc::new(IntervalMonthDayNanoArray::from(cells(rows, 14, |r| {
            IntervalMonthDayNano {
                months: r.0 as i32 / 2,
                days: (r.0 >> 16) as i32,
                nanoseconds: r.5 / 1000 * 1000,
            }
        }))),
        Arc::new(StringArray::from(cells(rows, 15, |r| {
            uuid::Uuid::from_u128(r.2 as u128).to_string()
        }))),
        Arc::new(StringArray::from(cells(rows, 16, |r| {
            serde_json::json!({"a": r.3}).to_string()
        }))),
        lists(
            Arc::new(StringArray::from(cells(rows, 17, |r| r.3.clone()))),
            &SqlType::Text,
        ),
        lists(
            Arc::new(TimestampMicrosecondArray::from(cells(rows, 18, stamp)).with_timezone("UTC")),
            &SqlType::Timestamptz,
        ),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn encoded(options: &CopyOptions, batch: &RecordBatch) -> Vec<u8> {
    let mut encoder = Encoder::new(options.clone(), batch.schema()).unwrap();
    let mut out = Vec::new();
    encoder.start(&mut out);
    encoder.batch(batch, &mut out).unwrap();
    encoder.finish(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_encoded_decodes_to_the_same(rows in proptest::collection::vec(row(), 1..8)) {
        let batch = batch_of(&rows);
        for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
            let mut options = CopyOptions::new(format);
            if format == CopyFormat::Csv {
                options.header = Header::Match;
            }
            options.style.time_zone = Tz::America__St_Johns;
            let data = encoded(&options, &batch);
            let back = decode(&options, &batch.schema(), &[&data]).unwrap().unwrap();
            for (a, b) in batch.columns().iter().zip(back.columns()) {
                prop_assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
            let schema = batch_of(&[]).schema();
            let _ = decode(&CopyOptions::new(format), &schema, &[&data]);
            let mut whole = encoded(&CopyOptions::new(CopyFormat::Binary), &batch_of(&[]));
            whole.truncate(19);
            whole.extend_from_slice(&data);
            let _ = decode(&CopyOptions::new(format), &schema, &[&whole]);
        }
        for ty in every_type() {
            let mut reader = of_type(&ty, Tz::UTC).unwrap();
            let _ = reader.binary(&data);
            let _ = reader.text(&String::from_utf8_lossy(&data));
        }
    }

    #[test]
    fn readers_take_any_text(text in "[-+0-9:. TZPYMDHS/{}\",\\\\a-z]{0,20}") {
        for ty in every_type() {
            let mut reader = of_type(&ty, Tz::Europe__Berlin).unwrap();
            let _ = reader.text(&text);
        }
    }
}

#[test]
fn data_may_be_cut_anywhere() {
    let row = (
        -5,
        2.5,
        123,
        "a\t\"b\",\\\n\r.".to_owned(),
        vec![0, 255],
        1_234_567,
        0b1010,
    );
    let other = (7, f64::NAN, -1, String::new(), vec![], -1, 0b10101);
    let batch = batch_of(&[row, other]);
    for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
        let options = CopyOptions::new(format);
        let data = encoded(&options, &batch);
        let whole = decode(&options, &batch.schema(), &[&data])
            .unwrap()
            .unwrap();
        for cut in 0..data.len() {
            let (a, b) = data.split_at(cut);
            let pieces = decode(&options, &batch.schema(), &[a, b]).unwrap().unwrap();
            assert_eq!(pieces, whole, "cut at {cut} of {format:?}");
        }
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(
            decode(&options, &batch.schema(), &bytes).unwrap().unwrap(),
            whole
        );
    }
}

#[test]
fn many_rows_come_in_batches() {
    let data: Vec<u8> = (0..20_000)
        .flat_map(|n| format!("{n}\tx\n").into_bytes())
        .collect();
    let mut decoder = Decoder::new(CopyOptions::new(CopyFormat::Text), two_columns()).unwrap();
    let mut counts: Vec<usize> = decoder
        .feed(&data)
        .unwrap()
        .iter()
        .map(|piece| piece.batch.num_rows())
        .collect();
    counts.push(decoder.finish().unwrap().unwrap().batch.num_rows());
    assert_eq!(counts, [8_192, 8_192, 3_616]);
}

#[test]
fn ambiguous_options_are_refused() {
    let mut o = CopyOptions::new(CopyFormat::Text);
    o.delimiter = b'a';
    assert_eq!(o.check().unwrap_err().state().0, "22023");
    let mut o = CopyOptions::new(CopyFormat::Csv);
    o.quote = b',';
    assert!(o.check().is_err());
    let mut o = CopyOptions::new(CopyFormat::Binary);
    o.header = Header::Present;
    assert!(o.check().is_err());
}

/// The same rows as PostgreSQL 15 wrote them (see `testdata/postgres15.sql`): each form decodes,
/// and encodes to the very bytes of all three.
#[test]
fn bytes_are_those_of_postgres() {
    let files: [(CopyFormat, &[u8]); 3] = [
        (CopyFormat::Text, include_bytes!("testdata/postgres15.text")),
        (CopyFormat::Csv, include_bytes!("testdata/postgres15.csv")),
        (
            CopyFormat::Binary,
            include_bytes!("testdata/postgres15.binary"),
        ),
    ];
    let numeric = SqlType::Numeric {
        precision: 30,
        scale: 6,
    };
    let types = [
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Float4,
        SqlType::Float8,
        numeric.clone(),
        SqlType::Text,
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Array(Box::new(SqlType::Text)),
        SqlType::Array(Box::new(numeric)),
    ];
    let fields: Vec<Field> = types.iter().map(|ty| field("c", ty, true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let options = |format| {
        let mut options = CopyOptions::new(format);
        options.style.time_zone = Tz::America__St_Johns;
        options
    };
    for (from, data) in files {
        let batch = decode(&options(from), &schema, &[data]).unwrap().unwrap();
        assert_eq!(batch.num_rows(), 9);
        for (to, expected) in files {
            let made = encoded(&options(to), &batch);
            assert_eq!(
                String::from_utf8_lossy(&made),
                String::from_utf8_lossy(expected),
                "{from:?} to {to:?}"
            );
        }
    }
}
