//! Privileges, lineage, audit, passwords.
//!
//! | module | what lies there |
//! |---|---|
//! | [`privileges`] | may this role do that to this object |
//! | [`lineage`] | column edges of a plan |
//! | [`audit`] | the trace of every statement |
//! | [`scram`] | password verifiers |

pub mod audit;
pub mod lineage;
pub mod privileges;
pub mod scram;
