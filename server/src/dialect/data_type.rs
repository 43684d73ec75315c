//! A written type → the catalog's [`SqlType`].

use catalog::SqlType;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, TimezoneInfo,
};

use super::words::parts;
use crate::error::{Error, Result, SqlState};

/// The longest `varchar(n)`, as in PostgreSQL.
const MAX_LENGTH: u64 = 10_485_760;
/// `numeric` without digits: PostgreSQL's has no bound, Delta's has 38 digits.
const BARE_NUMERIC: SqlType = SqlType::Numeric {
    precision: 38,
    scale: 10,
};

/// The type of a column.
///
/// # Errors
/// 42704 for an unknown type, 0A000 for one of PostgreSQL's that is not there, 22023 for a size out of
/// range.
pub fn sql_type(written: &DataType) -> Result<SqlType> {
    Ok(match written {
        DataType::Bool | DataType::Boolean => SqlType::Bool,
        DataType::SmallInt(None) | DataType::Int2(None) => SqlType::Int2,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => SqlType::Int4,
        DataType::BigInt(None) | DataType::Int8(None) => SqlType::Int8,
        DataType::Real | DataType::Float4 => SqlType::Float4,
        DataType::DoublePrecision | DataType::Float8 | DataType::Double(ExactNumberInfo::None) => {
            SqlType::Float8
        }
        DataType::Float(size) => float(size)?,
        DataType::Numeric(size) | DataType::Decimal(size) | DataType::Dec(size) => numeric(size)?,
        DataType::Text => SqlType::Text,
        DataType::Varchar(length)
        | DataType::CharVarying(length)
        | DataType::CharacterVarying(length) => varchar(length.as_ref())?,
        DataType::Char(_) | DataType::Character(_) => {
            return Err(Error::unsupported(
                "type character(n) is not supported",
                "use varchar(n) or text: they do not pad with blanks",
            ));
        }
        DataType::Bytea => SqlType::Bytea,
        DataType::Date => SqlType::Date,
        DataType::Time(precision, zone) => {
            if is_zoned(zone) {
                return Err(Error::unsupported(
                    "type time with time zone is not supported",
                    "use timestamptz",
                ));
            }
            micros(*precision)?;
            SqlType::Time
        }
        DataType::Timestamp(precision, zone) => {
            micros(*precision)?;
            match is_zoned(zone) {
                true => SqlType::Timestamptz,
                false => SqlType::Timestamp,
            }
        }
        DataType::Interval {
            fields: None,
            precision: None,
        } => SqlType::Interval,
        DataType::Uuid => SqlType::Uuid,
        DataType::JSON => SqlType::Json,
        DataType::JSONB => SqlType::Jsonb,
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(of, None) | ArrayElemTypeDef::AngleBracket(of),
        ) => array(sql_type(of)?)?,
        DataType::Custom(name, arguments) => return Err(custom(&parts(name).join("."), arguments)),
        other => {
            return Err(Error::unsupported(
                format!("type {} is not supported", other.to_string().to_lowercase()),
                "the README lists the types that are there",
            ));
        }
    })
}

fn is_zoned(zone: &TimezoneInfo) -> bool {
    matches!(zone, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz)
}

/// Times are kept in microseconds; another precision would not be honoured.
fn micros(precision: Option<u64>) -> Result<()> {
    match precision {
        None | Some(6) => Ok(()),
        Some(n) => Err(Error::unsupported(
            format!("time precision {n} is not supported"),
            "leave the precision out: times have microseconds",
        )),
    }
}

fn float(size: &ExactNumberInfo) -> Result<SqlType> {
    match size {
        ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53) => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(1..=24) => Ok(SqlType::Float4),
        _ => Err(out_of_range("float", "give it 1 to 53 binary digits")),
    }
}

fn numeric(size: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match size {
        ExactNumberInfo::None => return Ok(BARE_NUMERIC),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if scale >= 0 && scale.unsigned_abs() <= precision => {
            Ok(SqlType::Numeric { precision, scale })
        }
        _ => Err(out_of_range(
            "numeric",
            "it has 1 to 38 digits, of them none to all after the point",
        )),
    }
}

fn varchar(length: Option<&CharacterLength>) -> Result<SqlType> {
    match length {
        None => Ok(SqlType::Text),
        Some(CharacterLength::IntegerLength {
            length: 1..=MAX_LENGTH,
            unit: Some(_),
        })
        | Some(CharacterLength::Max) => Err(Error::unsupported(
            "this form of varchar is not supported",
            "use varchar(n) or text",
        )),
        Some(CharacterLength::IntegerLength { length, .. }) => match u32::try_from(*length) {
            Ok(n) if (1..=MAX_LENGTH).contains(length) => Ok(SqlType::Varchar(n)),
            _ => Err(out_of_range(
                "varchar",
                "give it 1 to 10485760 characters, or use text",
            )),
        },
    }
}

fn array(of: SqlType) -> Result<SqlType> {
    match of {
        SqlType::Array(_) => Err(Error::unsupported(
            "arrays of arrays are not supported",
            "store nested arrays as jsonb",
        )),
        of => Ok(SqlType::Array(Box::new(of))),
    }
}

fn out_of_range(ty: &str, hint: &str) -> Error {
    let message = format!("the size of type {ty} is out of range");
    Error::refused(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint)
}

/// Names the parser has no type for.
fn custom(name: &str, arguments: &[String]) -> Error {
    match name {
        "serial" | "serial4" | "bigserial" | "serial8" | "smallserial" | "serial2" => {
            Error::unsupported(
                format!("type {name} is not supported"),
                "use bigint and give the numbers, or uuid DEFAULT gen_random_uuid()",
            )
        }
        "bpchar" | "\"char\"" => Error::unsupported(
            format!("type {name} is not supported"),
            "use varchar(n) or text: they do not pad with blanks",
        ),
        "money" | "xml" | "inet" | "cidr" | "macaddr" | "tsvector" | "hstore" | "oid" | "name" => {
            Error::unsupported(format!("type {name} is not supported"), "store it as text")
        }
        _ if arguments.is_empty() => Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{name}\" does not exist"),
        ),
        _ => Error::refused(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{name}({})\" does not exist", arguments.join(", ")),
        ),
    }
}
