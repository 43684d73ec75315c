//! Text → [`Statement`]: wraps DataFusion's parser and adds weir's own statements, one file each.
//! Parses once; nothing downstream renders SQL again.

/// A parsed statement with where it stood.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its text, without the trailing semicolon.
    pub text: String,
}
