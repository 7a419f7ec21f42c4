//! The examples do what they show.

use std::path::{Path, PathBuf};
use std::process::Output;

use cotton::cluster::flavour::Flavour;

use crate::support::system::System;
use crate::support::{CREATE_DEADLINE, DELETE_DEADLINE};

#[tokio::test]
async fn the_shell_script_works() {
    let script = crate::support::in_project("examples/create-and-use.sh");
    check(&script, "from-shell").await;
}

#[tokio::test]
async fn the_rust_program_works() {
    check(&example("create_and_use"), "from-rust").await;
}

async fn check(program: &Path, cluster: &str) {
    let system = System::shared(Flavour::Mariadb);
    let mut command = tokio::process::Command::new(program);
    command.args([&system.api, cluster]).kill_on_drop(true);
    // It waits for the cluster to come up, and to be gone.
    let deadline = CREATE_DEADLINE + DELETE_DEADLINE;
    let output = tokio::time::timeout(deadline, command.output()).await;
    let output: Output = output
        .unwrap_or_else(|_| panic!("{program:?} does not end"))
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Hello from the master"), "{text}");
    // Discovery goes first, so that the deletion can be resumed from the record, which goes last.
    system.wait_unknown(cluster).await;
}

/// Cargo builds examples beside the test binaries' folder.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().unwrap().parent().unwrap();
    let program = target.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing; build it with: cargo build --example {name}",
        program.display()
    );
    program
}
