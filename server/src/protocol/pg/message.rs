//! Messages of a client, taken apart with every length checked.

use bytes::{Buf, Bytes};

use super::wire::Frame;
use crate::error::{Error, Result, SqlState};
use crate::values::valid_text;

/// A message after the start-up.
#[derive(Debug)]
pub(super) enum Message {
    Query(String),
    Parse(Parse),
    Bind(Bind),
    Describe {
        portal: bool,
        name: String,
    },
    Execute {
        portal: String,
        max_rows: i32,
    },
    Close {
        portal: bool,
        name: String,
    },
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// Function call: refused.
    FunctionCall,
    /// A password message outside of the login.
    Password,
}

#[derive(Debug)]
pub(super) struct Parse {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) types: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) param_formats: Vec<i16>,
    pub(super) params: Vec<Option<Bytes>>,
    pub(super) result_formats: Vec<i16>,
}

impl Message {
    /// Whether an error in this kind of message makes the server skip to the next Sync.
    pub(super) fn is_extended(kind: u8) -> bool {
        matches!(kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S')
    }

    pub(super) fn decode(frame: Frame) -> Result<Self> {
        let mut body = Body(frame.body);
        let message = match frame.kind {
            b'Q' => Self::Query(body.text()?),
            b'P' => Self::Parse(Parse {
                name: body.text()?,
                sql: body.text()?,
                types: body.list(|b| Ok(b.word()?.cast_unsigned()))?,
            }),
            b'B' => Self::Bind(Bind {
                portal: body.text()?,
                statement: body.text()?,
                param_formats: body.list(Body::short)?,
                params: body.list(Body::value)?,
                result_formats: body.list(Body::short)?,
            }),
            b'D' => Self::Describe {
                portal: body.is_portal()?,
                name: body.text()?,
            },
            b'C' => Self::Close {
                portal: body.is_portal()?,
                name: body.text()?,
            },
            b'E' => Self::Execute {
                portal: body.text()?,
                max_rows: body.word()?,
            },
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            b'd' => return Ok(Self::CopyData(body.0)),
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail(body.text()?),
            b'p' => return Ok(Self::Password),
            _ => return Ok(Self::FunctionCall),
        };
        if body.0.is_empty() {
            Ok(message)
        } else {
            Err(malformed())
        }
    }
}

fn malformed() -> Error {
    Error::refused(SqlState::PROTOCOL_VIOLATION, "invalid message format")
}

/// Reads the fields of a message body.
#[derive(Debug)]
pub(super) struct Body(pub(super) Bytes);

impl Body {
    /// Bytes up to a NUL.
    fn until_nul(&mut self) -> Result<Bytes> {
        let end = self.0.iter().position(|b| *b == 0).ok_or_else(malformed)?;
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String> {
        Ok(valid_text(&self.until_nul()?)?.to_owned())
    }

    fn byte(&mut self) -> Result<u8> {
        self.0.try_get_u8().map_err(|_| malformed())
    }

    fn short(&mut self) -> Result<i16> {
        self.0.try_get_i16().map_err(|_| malformed())
    }

    pub(super) fn word(&mut self) -> Result<i32> {
        self.0.try_get_i32().map_err(|_| malformed())
    }

    /// A length and that many bytes; `None` for -1.
    pub(super) fn value(&mut self) -> Result<Option<Bytes>> {
        match self.word()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| malformed())?;
                if length > self.0.len() {
                    return Err(malformed());
                }
                Ok(Some(self.0.split_to(length)))
            }
        }
    }

    /// A 16-bit count and that many items.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.short()?.cast_unsigned();
        (0..count).map(|_| item(self)).collect()
    }

    fn is_portal(&mut self) -> Result<bool> {
        match self.byte()? {
            b'P' => Ok(true),
            b'S' => Ok(false),
            _ => Err(malformed()),
        }
    }
}
