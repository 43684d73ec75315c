//! What a function refuses, as a value the server can give a code to.
//!
//! Travels as [`DataFusionError::External`], so it comes out whole at the other end.

use datafusion::error::DataFusionError;

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An argument has a value that makes no sense.
    InvalidParameter,
    /// An argument has the wrong type.
    WrongType,
    /// The function stands where it has no meaning.
    Misplaced,
    /// A form that is not supported.
    Unsupported,
}

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// Why.
    pub kind: Kind,
    /// Primary message: lower case, no period, names the function.
    pub message: String,
    /// What to do instead.
    pub hint: Option<String>,
}

impl FunctionError {
    /// An argument has a value that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }

    /// An argument has the wrong type.
    pub fn wrong_type(message: impl Into<String>) -> Self {
        Self::new(Kind::WrongType, message)
    }

    /// The function stands where it has no meaning.
    pub fn misplaced(message: impl Into<String>) -> Self {
        Self::new(Kind::Misplaced, message)
    }

    /// A form that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// Adds what to do instead.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }
}

impl std::fmt::Display for FunctionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FunctionError {}

impl From<FunctionError> for DataFusionError {
    fn from(e: FunctionError) -> Self {
        Self::External(Box::new(e))
    }
}
