//! Typed metadata of a weir database and the stores that keep it.
//!
//! Owns the model (roles, schemas, relations, models, secrets, grants, lineage, audit), the
//! [`Store`] trait and its SQLite and PostgreSQL backends. It must not know DataFusion, the server
//! or any wire protocol.
//!
//! | module | what lies there |
//! |---|---|
//! | [`model`] | plain values, one file per entity; [`model::Snapshot`] holds one consistent view of all |
//! | [`change`] | what a statement may do to the catalog, as values |
//! | [`store`] | the [`Store`] trait and its backends |
//! | [`error`] | [`CatalogError`] |

pub mod change;
pub mod error;
pub mod model;
pub mod store;

pub use change::Change;
pub use error::CatalogError;
pub use model::*;
pub use store::Store;
