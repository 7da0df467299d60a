//! The `adda` command.

fn main() {}
