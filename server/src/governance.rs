//! Privileges, lineage, audit, passwords.
//!
//! | module | what lies there |
//! |---|---|
//! | [`privileges`] | may this role do that to this object |
//! | [`lineage`] | column edges of a plan |
//! | [`audit`] | the trace of every statement |
//! | [`scram`] | password verifiers |
//! | [`write_key`] | keys that let rows into one table |

pub mod audit;
pub mod lineage;
pub mod privileges;
pub mod scram;
pub mod write_key;
