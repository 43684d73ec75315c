//! `pg_type`: the types clients may look up, from `types.txt`, and their standard names.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::SUPERUSER;
use crate::error::Result;
use crate::system::frame::Frame;

/// One type.
#[derive(Debug)]
pub(crate) struct PgType {
    pub(crate) oid: u32,
    pub(crate) name: &'static str,
    pub(crate) len: i32,
    pub(crate) by_value: bool,
    pub(crate) kind: &'static str,
    pub(crate) category: &'static str,
    pub(crate) preferred: bool,
    pub(crate) element: u32,
    pub(crate) array: u32,
    /// Input, output, receive and send functions.
    pub(crate) functions: [&'static str; 4],
    pub(crate) align: &'static str,
    pub(crate) storage: &'static str,
    pub(crate) collation: u32,
    pub(crate) delimiter: &'static str,
}

impl PgType {
    /// What stands in for a type without an entry.
    pub(crate) const UNKNOWN: Self = Self {
        oid: 705,
        name: "unknown",
        len: -2,
        by_value: false,
        kind: "p",
        category: "X",
        preferred: false,
        element: 0,
        array: 0,
        functions: ["unknownin", "unknownout", "unknownrecv", "unknownsend"],
        align: "c",
        storage: "p",
        collation: 0,
        delimiter: ",",
    };
}

static ALL: LazyLock<Vec<PgType>> = LazyLock::new(|| {
    include_str!("types.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(parse)
        .collect()
});

/// The type with that oid.
pub(crate) fn by_oid(oid: u32) -> Option<&'static PgType> {
    ALL.iter().find(|t| t.oid == oid)
}

/// The type of a name as `pg_type` or SQL spells it, with any type modifier left out.
pub(crate) fn by_name(name: &str) -> Option<&'static PgType> {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let name = name.split('(').next().unwrap_or(name).trim();
    let (name, array) = match name.strip_suffix("[]") {
        Some(element) => (element, true),
        None => (name, false),
    };
    let name = name.trim_matches('"');
    let found = ALL
        .iter()
        .find(|t| t.name == name)
        .or_else(|| ALL.iter().find(|t| SPELLINGS.contains(&(t.name, name))))
        .or_else(|| ALL.iter().find(|t| ALIASES.contains(&(t.name, name))))?;
    if array {
        by_oid(found.array)
    } else {
        Some(found)
    }
}

/// The type of a column in the shapes.
pub(crate) fn by_shape_name(name: &str) -> Option<&'static PgType> {
    by_name(name)
}

/// The names of all input and output functions, each once.
pub(super) fn io_functions() -> BTreeSet<&'static str> {
    let all = ALL.iter().flat_map(|t| t.functions);
    all.filter(|name| *name != "-").collect()
}

/// How SQL spells a type where that differs from its name in `pg_type`.
const SPELLINGS: [(&str, &str); 18] = [
    ("bool", "boolean"),
    ("int2", "smallint"),
    ("int4", "integer"),
    ("int8", "bigint"),
    ("float4", "real"),
    ("float8", "double precision"),
    ("bpchar", "character"),
    ("varchar", "character varying"),
    ("time", "time without time zone"),
    ("timetz", "time with time zone"),
    ("timestamp", "timestamp without time zone"),
    ("timestamptz", "timestamp with time zone"),
    ("varbit", "bit varying"),
    ("char", "\"char\""),
    ("any", "\"any\""),
    ("bit", "bit"),
    ("numeric", "numeric"),
    ("text", "text"),
];

/// Further names that SQL takes.
const ALIASES: [(&str, &str); 4] = [
    ("int4", "int"),
    ("numeric", "decimal"),
    ("float8", "float"),
    ("bpchar", "char"),
];

/// A type's name as SQL spells it, `ARRAY` for arrays, as `information_schema` has it.
pub(crate) fn standard_name(ty: &PgType) -> String {
    if ty.category == "A" && ty.name.starts_with('_') {
        return "ARRAY".to_owned();
    }
    spelling(ty).to_owned()
}

fn spelling(ty: &PgType) -> &'static str {
    SPELLINGS
        .iter()
        .find(|(name, _)| *name == ty.name)
        .map_or(ty.name, |(_, spelling)| spelling)
}

/// A type with its modifier as SQL spells it: `numeric(10,2)`, `character varying(40)[]`.
pub(crate) fn format(oid: u32, typmod: Option<i32>) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    let Some(ty) = by_oid(oid) else {
        return "???".to_owned();
    };
    if let Some(element) = by_oid(ty.element).filter(|_| ty.name.starts_with('_')) {
        return format!("{}[]", format(element.oid, typmod));
    }
    let base = spelling(ty);
    let Some(typmod) = typmod.filter(|m| *m >= 0) else {
        return base.to_owned();
    };
    match ty.name {
        "numeric" if typmod >= 4 => {
            let (precision, scale) = ((typmod - 4) >> 16, (typmod - 4) & 0x7ff);
            format!("numeric({precision},{scale})")
        }
        "varchar" | "bpchar" if typmod >= 4 => format!("{base}({})", typmod - 4),
        "time" | "timetz" | "timestamp" | "timestamptz" => match base.split_once(' ') {
            Some((word, zone)) => format!("{word}({typmod}) {zone}"),
            None => base.to_owned(),
        },
        _ => base.to_owned(),
    }
}

pub(super) fn fill(frame: &mut Frame) -> Result<()> {
    for ty in ALL.iter() {
        let [input, output, receive, send] = ty.functions;
        let subscript = if ty.category == "A" {
            "array_subscript_handler"
        } else {
            "-"
        };
        frame.row([
            ("oid", ty.oid.into()),
            ("typname", ty.name.into()),
            ("typnamespace", 11.into()),
            ("typowner", SUPERUSER.into()),
            ("typlen", ty.len.into()),
            ("typbyval", ty.by_value.into()),
            ("typtype", ty.kind.into()),
            ("typcategory", ty.category.into()),
            ("typispreferred", ty.preferred.into()),
            ("typisdefined", true.into()),
            ("typdelim", ty.delimiter.into()),
            ("typsubscript", subscript.into()),
            ("typelem", ty.element.into()),
            ("typarray", ty.array.into()),
            ("typinput", input.into()),
            ("typoutput", output.into()),
            ("typreceive", receive.into()),
            ("typsend", send.into()),
            ("typalign", ty.align.into()),
            ("typstorage", ty.storage.into()),
            ("typtypmod", (-1).into()),
            ("typcollation", ty.collation.into()),
        ])?;
    }
    Ok(())
}

/// A line that does not parse is left out; a test counts them.
fn parse(line: &'static str) -> Option<PgType> {
    let f: Vec<&'static str> = line.split('|').collect();
    let [
        oid,
        name,
        len,
        by_value,
        kind,
        category,
        preferred,
        element,
        array,
        rest @ ..,
    ] = &f[..]
    else {
        return None;
    };
    let [
        input,
        output,
        receive,
        send,
        align,
        storage,
        collation,
        delimiter,
    ] = rest
    else {
        return None;
    };
    Some(PgType {
        oid: oid.parse().ok()?,
        name,
        len: len.parse().ok()?,
        by_value: *by_value == "t",
        kind,
        category,
        preferred: *preferred == "t",
        element: element.parse().ok()?,
        array: array.parse().ok()?,
        functions: [input, output, receive, send],
        align,
        storage,
        collation: collation.parse().ok()?,
        delimiter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_type() {
        let lines = include_str!("types.txt")
            .lines()
            .filter(|l| !l.starts_with('#'));
        for line in lines {
            assert!(parse(line).is_some(), "{line}");
        }
        for ty in ALL.iter().filter(|t| t.array != 0) {
            assert_eq!(by_oid(ty.array).unwrap().element, ty.oid, "{}", ty.name);
        }
    }

    #[test]
    fn names_and_spellings() {
        assert_eq!(by_name("integer[]").unwrap().name, "_int4");
        assert_eq!(by_name("pg_catalog.Text").unwrap().oid, 25);
        assert_eq!(by_name("numeric(10,2)").unwrap().oid, 1700);
        assert_eq!(by_name("\"char\"").unwrap().oid, 18);
        assert!(by_name("hstore").is_none());
        assert_eq!(format(1700, Some(655_366)), "numeric(10,2)");
        assert_eq!(format(1043, Some(44)), "character varying(40)");
        assert_eq!(format(1015, Some(44)), "character varying(40)[]");
        assert_eq!(format(1114, Some(3)), "timestamp(3) without time zone");
        assert_eq!(format(1184, Some(-1)), "timestamp with time zone");
        assert_eq!(format(18, None), "\"char\"");
        assert_eq!(format(1, None), "???");
    }
}
