//! The `weir` program: hands over to [`server`].
fn main() {}
