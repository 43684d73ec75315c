//! `GetXdbcTypeInfo`: the SQL types as ODBC and JDBC describe them.

use std::sync::OnceLock;

use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType as Code, XdbcDatetimeSubcode};

use crate::error::{Error, Result};

/// All types.
pub(super) fn data() -> Result<&'static XdbcTypeInfoData> {
    static DATA: OnceLock<Option<XdbcTypeInfoData>> = OnceLock::new();
    DATA.get_or_init(|| build().ok())
        .as_ref()
        .ok_or_else(|| Error::Internal("cannot build the type info".to_owned()))
}

fn build() -> arrow_flight::error::Result<XdbcTypeInfoData> {
    let mut b = XdbcTypeInfoDataBuilder::new();
    b.append(other("boolean", Code::XdbcBit, 1));
    b.append(number("smallint", Code::XdbcSmallint, 16, 2));
    b.append(number("integer", Code::XdbcInteger, 32, 2));
    b.append(number("bigint", Code::XdbcBigint, 64, 2));
    b.append(number("real", Code::XdbcReal, 24, 2));
    b.append(number("double precision", Code::XdbcDouble, 53, 2));
    b.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        ..number("numeric", Code::XdbcNumeric, 38, 10)
    });
    b.append(text("text", Code::XdbcLongvarchar, None));
    b.append(text("varchar", Code::XdbcVarchar, Some("length")));
    b.append(text("uuid", Code::XdbcChar, None));
    b.append(text("json", Code::XdbcLongvarchar, None));
    b.append(text("jsonb", Code::XdbcLongvarchar, None));
    b.append(XdbcTypeInfo {
        literal_prefix: Some("'\\x".to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..other("bytea", Code::XdbcLongvarbinary, i32::MAX)
    });
    // the subcode of dates is 1, which the enumeration names after its other meaning
    b.append(moment(
        "date",
        Code::XdbcDate,
        10,
        XdbcDatetimeSubcode::XdbcSubcodeYear,
    ));
    b.append(moment(
        "time",
        Code::XdbcTime,
        15,
        XdbcDatetimeSubcode::XdbcSubcodeTime,
    ));
    b.append(moment(
        "timestamp",
        Code::XdbcTimestamp,
        26,
        XdbcDatetimeSubcode::XdbcSubcodeTimestamp,
    ));
    b.append(moment(
        "timestamptz",
        Code::XdbcTimestamp,
        32,
        XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone,
    ));
    b.build()
}

fn other(name: &str, code: Code, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        local_type_name: Some(name.to_owned()),
        data_type: code,
        sql_data_type: code,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..XdbcTypeInfo::default()
    }
}

fn number(name: &str, code: Code, size: i32, radix: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        num_prec_radix: Some(radix),
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        ..other(name, code, size)
    }
}

fn text(name: &str, code: Code, parameter: Option<&str>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some("'".to_owned()),
        literal_suffix: Some("'".to_owned()),
        case_sensitive: true,
        create_params: parameter.map(|p| vec![p.to_owned()]),
        ..other(name, code, i32::MAX)
    }
}

fn moment(name: &str, code: Code, size: i32, subcode: XdbcDatetimeSubcode) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some("'".to_owned()),
        literal_suffix: Some("'".to_owned()),
        sql_data_type: Code::XdbcDatetime,
        datetime_subcode: Some(subcode),
        ..other(name, code, size)
    }
}
