//! What reading one row of `COPY` data again needs: format, columns, and the options that change how a
//! row is read, as JSON.

use serde_json::{Value, json};

use super::decode::SIGNATURE;
use super::{Columns, CopyFormat, CopyOptions};
use crate::error::{Error, Result};
use crate::stream::letters::Form;

impl CopyOptions {
    /// How rows of this format are kept.
    pub(crate) fn form(&self) -> Form {
        match self.format {
            CopyFormat::Text => Form::CopyText,
            CopyFormat::Csv => Form::CopyCsv,
            CopyFormat::Binary => Form::CopyBinary,
        }
    }

    /// The context of rows of these columns.
    pub(crate) fn context<'a>(&self, columns: impl Iterator<Item = &'a str>) -> String {
        let columns: Vec<&str> = columns.collect();
        json!({
            "columns": columns,
            "delimiter": self.delimiter,
            "null": self.null,
            "quote": self.quote,
            "escape": self.escape,
            "force_not_null": places(&self.force_not_null, columns.len()),
            "force_null": places(&self.force_null, columns.len()),
            "time_zone": self.style.time_zone.name(),
        })
        .to_string()
    }

    /// The options and columns behind a context.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn of_context(form: Form, context: &str) -> Result<(Self, Vec<String>)> {
        let bad = || Error::Internal("a dead letter of COPY has no context".to_owned());
        let read: Value = serde_json::from_str(context).map_err(|_| bad())?;
        let byte = |key: &str| {
            let byte = read[key].as_u64().and_then(|n| u8::try_from(n).ok());
            byte.ok_or_else(bad)
        };
        let list = |key: &str| read[key].as_array().ok_or_else(bad);
        let columns = list("columns")?
            .iter()
            .map(|c| Ok(c.as_str().ok_or_else(bad)?.to_owned()))
            .collect::<Result<Vec<_>>>()?;
        let some = |key: &str| -> Result<Columns> {
            let places = list(key)?.iter().map(|n| {
                let place = n.as_u64().and_then(|n| usize::try_from(n).ok());
                place.ok_or_else(bad)
            });
            Ok(Columns::Only(places.collect::<Result<_>>()?))
        };
        let mut options = Self::new(match form {
            Form::CopyCsv => CopyFormat::Csv,
            Form::CopyBinary => CopyFormat::Binary,
            Form::CopyText => CopyFormat::Text,
            Form::Json
            | Form::Csv
            | Form::Segment
            | Form::Avro
            | Form::Protobuf
            | Form::Message => {
                return Err(bad());
            }
        });
        options.delimiter = byte("delimiter")?;
        options.quote = byte("quote")?;
        options.escape = byte("escape")?;
        options.null = read["null"].as_str().ok_or_else(bad)?.to_owned();
        options.force_not_null = some("force_not_null")?;
        options.force_null = some("force_null")?;
        let zone = read["time_zone"].as_str().ok_or_else(bad)?;
        options.style.time_zone = zone.parse().map_err(|_| bad())?;
        Ok((options, columns))
    }

    /// A row as data of its own.
    pub(crate) fn data_of(&self, row: &[u8]) -> Vec<u8> {
        let mut data = Vec::with_capacity(row.len() + 32);
        if self.format == CopyFormat::Binary {
            data.extend_from_slice(SIGNATURE);
            data.extend_from_slice(&[0; 8]);
        }
        data.extend_from_slice(row);
        if self.format != CopyFormat::Binary {
            data.push(b'\n');
        }
        data
    }
}

fn places(columns: &Columns, count: usize) -> Vec<usize> {
    (0..count).filter(|i| columns.contains(*i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_gives_the_options_back() {
        let mut options = CopyOptions::new(CopyFormat::Csv);
        options.delimiter = b';';
        options.null = "-".to_owned();
        options.force_null = Columns::Only(vec![1]);
        options.force_not_null = Columns::All;
        options.style.time_zone = chrono_tz::Europe::Berlin;
        let context = options.context(["a", "b"].into_iter());
        let (back, columns) = CopyOptions::of_context(Form::CopyCsv, &context).unwrap();
        assert_eq!(columns, ["a", "b"]);
        assert_eq!(
            (back.delimiter, back.null.as_str(), back.style.time_zone),
            (b';', "-", chrono_tz::Europe::Berlin)
        );
        assert_eq!(back.force_null, Columns::Only(vec![1]));
        assert_eq!(back.force_not_null, Columns::Only(vec![0, 1]));
        for broken in ["", "{}", "[1]", "{\"columns\":[1]}"] {
            assert!(CopyOptions::of_context(Form::CopyText, broken).is_err());
        }
    }
}
