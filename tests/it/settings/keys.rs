//! Key files and who shares which identity.

use std::os::unix::fs::PermissionsExt as _;

use super::Setup;

#[test]
fn wrong_key_files_and_their_sentences() {
    for (flag, content, sentence) in [
        (
            "admin-keypath",
            "username: a\n",
            "must be YAML with the two keys username and password",
        ),
        (
            "admin-keypath",
            "username: a\npassword: hunter2\nx: y\n",
            "must be YAML with the two keys username and password; see its line 3",
        ),
        (
            "admin-keypath",
            "username: ''\npassword: hunter2\n",
            "username is empty",
        ),
        (
            "executor-zk-keypath",
            "hunter2",
            "must be YAML with the two keys username and password",
        ),
        (
            "framework-authentication-file",
            "principal: a\n",
            "must be YAML with the two keys principal and secret",
        ),
        (
            "scheduler-keypath",
            "hunter2",
            "must hold exactly 32 bytes (and a newline at most), but it holds 7",
        ),
    ] {
        let setup = Setup::new();
        let file = setup.file("wrong", content);
        let fault = setup.with(flag, &file).fault();
        assert!(
            fault.starts_with(&format!("--{flag}: ")) && fault.contains(sentence),
            "{fault}"
        );
    }
}

#[test]
fn a_key_may_end_with_a_newline() {
    let setup = Setup::new();
    let file = setup.file("key2", &("k".repeat(32) + "\n"));
    assert!(setup.with("scheduler-keypath", &file).resolve().is_ok());
}

#[test]
fn the_identities_of_zookeeper_go_together() {
    let fault = Setup::new().without("executor-zk-keypath").fault();
    assert!(
        fault.starts_with("--executor-zk-keypath: it is required because --zk-url has a user"),
        "{fault}"
    );
    let fault = Setup::new().with("zk-url", "zk://z/cotton").fault();
    assert!(
        fault.contains("--zk-url has no user and password, so nothing would be protected"),
        "{fault}"
    );
    let fault = Setup::new()
        .with("zk-url", "zk://executor:x@z/cotton")
        .fault();
    assert!(
        fault.contains("the executors must not have the same ZooKeeper user"),
        "{fault}"
    );
    let open = Setup::new()
        .with("zk-url", "zk://z/cotton")
        .without("executor-zk-keypath");
    let warnings = open.resolve().unwrap().warnings;
    assert!(
        warnings[0].contains("everybody who reaches ZooKeeper can change"),
        "{warnings:?}"
    );
    let fault = open.with("zk-reader", "r:p").fault();
    assert!(
        fault.starts_with("--zk-reader: it says who may read, but"),
        "{fault}"
    );
}

#[test]
fn key_files_that_everybody_can_read_are_warned_of() {
    let setup = Setup::new();
    let key = &setup.flags["scheduler-keypath"];
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = setup.resolve().unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("the file of --scheduler-keypath; chmod o-r it")),
        "{warnings:?}"
    );
}
