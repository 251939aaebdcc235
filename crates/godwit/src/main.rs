//! The godwit binary.
fn main() {}
