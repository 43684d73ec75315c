//! System tables: `weir.*`, `pg_catalog`, `information_schema`; one file per table.
