//! Goal: `cotton local` comes up with one line and goes down without a trace, however it is ended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::machine::{Scheduler, task};
use super::web::{self, DEADLINE};
use crate::support::{eventually, spawn};

struct Local {
    child: Child,
    ready: String,
    temporary: tempfile::TempDir,
}

impl Local {
    fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::Builder::new()
            .prefix("cotton-up-")
            .tempdir()
            .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(temporary.path(), mode).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
        command
            .arg("local")
            .args(arguments)
            .env("TMPDIR", temporary.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command).unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        if ready.is_empty() {
            let mut why = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut why)
                .unwrap();
            panic!("cotton local did not come up: {why}");
        }
        Self {
            child,
            ready: ready.trim().to_owned(),
            temporary,
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.ready
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

/// Processes whose command line or directory names this path.
fn processes_of(path: &Path) -> Vec<String> {
    let text = path.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        if !own && !line.is_empty() && (line.contains(&text) || cwd.starts_with(path)) {
            found.push(line);
        }
    }
    found
}

/// Brings a task up on it, so that there is something to be taken down.
async fn run_a_task(local: &Local) {
    let master = local.field("mesos").unwrap();
    let scheduler = Scheduler::subscribe_at(master, super::machine::framework_info()).await;
    let offer = scheduler.offer("127.0.0.2").await;
    scheduler.launch(&offer, task("t", &offer, "plain")).await;
    scheduler.update("t", "TASK_STARTING").await;
    scheduler.update("t", "TASK_RUNNING").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_one_line_and_leaves_nothing() {
    let mut local = Local::start(&["--no-scheduler", "--agents", "2", "--time-scale", "10"]);
    assert!(
        local.field("zk").unwrap().starts_with("zk://127.0.0.1:"),
        "{}",
        local.ready
    );
    assert!(
        local.field("zk").unwrap().ends_with("/cotton"),
        "{}",
        local.ready
    );
    assert_eq!(local.field("api"), None);
    let state = web::get(&format!("{}/state", local.field("mesos").unwrap()))
        .await
        .unwrap();
    assert_eq!(state["slaves"].as_array().unwrap().len(), 2);
    run_a_task(&local).await;
    assert!(
        processes_of(local.temporary.path()).len() >= 5,
        "{:?}",
        processes_of(local.temporary.path())
    );

    local.signal(Signal::SIGINT);
    assert!(local.child.wait().unwrap().success());
    assert_eq!(processes_of(local.temporary.path()), Vec::<String>::new());
    assert_eq!(
        std::fs::read_dir(local.temporary.path()).unwrap().count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn even_sigkill_leaves_no_process() {
    let mut local = Local::start(&["--no-scheduler", "--agents", "2", "--time-scale", "10"]);
    run_a_task(&local).await;
    local.signal(Signal::SIGKILL);
    local.child.wait().unwrap();
    eventually("all processes are gone", DEADLINE, || async {
        processes_of(local.temporary.path())
            .is_empty()
            .then_some(())
    })
    .await;
}

#[test]
fn wrong_arguments_are_told_before_anything_starts() {
    for (arguments, sentence) in [
        (
            &["--ports", "9-1"][..],
            "'9-1' is not of the form begin-end",
        ),
        (
            &["--attributes", "rack"],
            "'rack' is not of the form name:value",
        ),
        (&["--domain", "eu"], "'eu' is not of the form region/zone"),
        (&["--agents", "201"], "201 is not in 0..=200"),
        (
            &["--zk-url", "http://x"],
            "'http://x' is not of the form zk://host:port/path",
        ),
        (
            &[
                "--framework-user",
                "no-such-user",
                "--zk-url",
                "zk://127.0.0.1:1",
            ],
            "there is no user 'no-such-user'",
        ),
        (
            &["--mysqld", "/no/such/file", "--zk-url", "zk://127.0.0.1:1"],
            "find /no/such/file",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
        let output = command.arg("local").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && text.contains(sentence),
            "{arguments:?}: {text}"
        );
        assert!(output.stdout.is_empty());
        assert!(!text.contains("starting"), "{arguments:?}: {text}");
    }
}
