//! SQL functions of weir: one file each, no server state.
