//! The `cotton` binary: one artifact for schedulers, agents and operators.

use std::process::ExitCode;

fn main() -> ExitCode {
    cotton::cli::main()
}
