//! Sizes: `pg_table_size`, `pg_database_size`, `pg_size_pretty`.

use catalog::Oid;

use super::{Entry, Row};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::{Cell, Kind};
use crate::system::stats::figures;

pub(super) const LIST: &[Entry] = &[
    ("pg_table_size", Kind::Int8, size),
    ("pg_relation_size", Kind::Int8, size),
    ("pg_total_relation_size", Kind::Int8, size),
    ("pg_indexes_size", Kind::Int8, |cx, row| {
        Ok(row.relation(cx, 0).map(|_| 0).into())
    }),
    ("pg_database_size", Kind::Int8, |cx, _| {
        let bytes: u64 = cx
            .relations()
            .iter()
            .filter_map(|(_, r)| figures(&cx.head, r.oid))
            .map(|f| f.bytes)
            .sum();
        Ok(bytes.cast_signed().into())
    }),
    ("pg_size_pretty", Kind::Text, |_, row| {
        Ok(row.int(0).map(pretty).into())
    }),
    ("pg_stat_get_numscans", Kind::Int8, |_, row| {
        Ok(row.text(0).map(|_| 0).into())
    }),
];

/// Bytes in storage; NULL for what is not there or not the role's to see.
#[expect(
    clippy::unnecessary_wraps,
    reason = "every entry of the list has this form"
)]
fn size(cx: &SystemContext, row: &Row<'_>) -> Result<Cell> {
    let relation = row
        .relation(cx, 0)
        .and_then(|oid| cx.catalog.relation_by_oid(Oid(oid)))
        .filter(|r| cx.access().sees_relation(r));
    let bytes = relation.map(|r| figures(&cx.head, r.oid).map_or(0, |f| f.bytes));
    Ok(bytes.map(u64::cast_signed).into())
}

/// As PostgreSQL prints sizes: the next unit begins at ten thousand and something.
fn pretty(bytes: i64) -> String {
    let mut size = bytes.unsigned_abs();
    let sign = if bytes < 0 { "-" } else { "" };
    let mut units = ["bytes", "kB", "MB", "GB", "TB", "PB"]
        .into_iter()
        .peekable();
    let mut unit = units.next().unwrap_or_default();
    while size >= 10 * 1024 && units.peek().is_some() {
        // rounded half up
        size = (size + 512) / 1024;
        unit = units.next().unwrap_or_default();
    }
    format!("{sign}{size} {unit}")
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn sizes_print_as_in_postgresql() {
        assert_eq!(pretty(0), "0 bytes");
        assert_eq!(pretty(10239), "10239 bytes");
        assert_eq!(pretty(10240), "10 kB");
        assert_eq!(pretty(-1_048_576), "-1024 kB");
        assert_eq!(pretty(1_073_741_824), "1024 MB");
    }
}
