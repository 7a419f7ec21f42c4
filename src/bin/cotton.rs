//! The `cotton` binary.
fn main() {}
