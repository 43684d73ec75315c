//! Types of JSON values, and the narrowest type that holds several of them without loss.

use catalog::SqlType;

use crate::decode::is_exact_double;

/// What values of one key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true`, `false`.
    Bool,
    /// Whole numbers of 64 bits; `exact` when a double holds each of them too.
    Whole {
        /// None needs more than the 53 bits of a double.
        exact: bool,
    },
    /// Numbers that a double gives back as they were written.
    Double,
    /// Texts, numbers beyond the others, and mixtures of what is no object or array.
    Text,
    /// Objects and arrays, alone or among other values.
    Json,
}

impl Kind {
    /// Of a JSON value as written; `None` for null, which may be anything.
    pub(super) fn of(json: &str) -> Option<Self> {
        Some(match json.as_bytes().first()? {
            b'n' => return None,
            b't' | b'f' => Self::Bool,
            b'"' => Self::Text,
            b'{' | b'[' => Self::Json,
            _ => match json.parse::<i64>() {
                // -0 is a double's only
                Ok(0) if json.starts_with('-') => Self::Double,
                Ok(whole) => Self::Whole {
                    exact: whole.unsigned_abs() <= 1 << 53,
                },
                Err(_) if is_exact_double(json) => Self::Double,
                Err(_) => Self::Text,
            },
        })
    }

    /// Of both.
    pub(super) fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole { exact: a }, Self::Whole { exact: b }) => Self::Whole { exact: a && b },
            (Self::Whole { exact: true }, Self::Double)
            | (Self::Double, Self::Whole { exact: true }) => Self::Double,
            (a, b) if a == b => a,
            (Self::Json, _) | (_, Self::Json) => Self::Json,
            _ => Self::Text,
        }
    }

    /// The type of a new column.
    pub(super) fn sql_type(self) -> SqlType {
        match self {
            Self::Bool => SqlType::Bool,
            Self::Whole { .. } => SqlType::Int8,
            Self::Double => SqlType::Float8,
            Self::Text => SqlType::Text,
            Self::Json => SqlType::Jsonb,
        }
    }

    /// The type that a column must have to take such values too; its own when no wider one would.
    pub(super) fn widened(self, column: &SqlType) -> SqlType {
        match (column, self) {
            (SqlType::Bool, Self::Bool) => SqlType::Bool,
            (SqlType::Int2 | SqlType::Int4 | SqlType::Int8, Self::Whole { .. }) => SqlType::Int8,
            (
                SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Float4 | SqlType::Float8,
                Self::Double,
            )
            | (SqlType::Float4 | SqlType::Float8, Self::Whole { exact: true }) => SqlType::Float8,
            (
                SqlType::Bool
                | SqlType::Int2
                | SqlType::Int4
                | SqlType::Int8
                | SqlType::Float4
                | SqlType::Float8
                | SqlType::Varchar(_),
                _,
            ) => SqlType::Text,
            (other, _) => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_values() {
        for (json, kind) in [
            ("true", Kind::Bool),
            ("12", Kind::Whole { exact: true }),
            ("-0", Kind::Double),
            ("9007199254740993", Kind::Whole { exact: false }),
            ("9223372036854775808", Kind::Text),
            ("0.1", Kind::Double),
            ("1.0", Kind::Double),
            ("1e300", Kind::Double),
            ("1e400", Kind::Text),
            ("1e-400", Kind::Text),
            ("0.30000000000000004", Kind::Double),
            ("0.300000000000000041", Kind::Text),
            ("18446744073709551616", Kind::Text),
            ("\"x\"", Kind::Text),
            ("[1]", Kind::Json),
        ] {
            assert_eq!(Kind::of(json), Some(kind), "{json}");
        }
        assert_eq!(Kind::of("null"), None);
    }

    #[test]
    fn several_values_take_the_narrowest_type_of_all() {
        let whole = Kind::Whole { exact: true };
        let long = Kind::Whole { exact: false };
        assert_eq!(whole.with(Kind::Double), Kind::Double);
        assert_eq!(long.with(Kind::Double), Kind::Text);
        assert_eq!(long.with(whole), long);
        assert_eq!(whole.with(Kind::Bool), Kind::Text);
        assert_eq!(Kind::Text.with(Kind::Json), Kind::Json);
    }

    #[test]
    fn columns_become_wider_and_never_narrower() {
        let whole = Kind::Whole { exact: true };
        assert_eq!(whole.widened(&SqlType::Int4), SqlType::Int8);
        assert_eq!(Kind::Double.widened(&SqlType::Int8), SqlType::Float8);
        assert_eq!(whole.widened(&SqlType::Float8), SqlType::Float8);
        assert_eq!(Kind::Text.widened(&SqlType::Float8), SqlType::Text);
        assert_eq!(Kind::Json.widened(&SqlType::Text), SqlType::Text);
        assert_eq!(Kind::Json.widened(&SqlType::Int8), SqlType::Text);
        assert_eq!(Kind::Text.widened(&SqlType::Date), SqlType::Date);
    }
}
