//! Child processes that cannot outlive the test binary.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Order = (Command, Signal, mpsc::Sender<io::Result<Child>>);

/// Spawns `command` so that the kernel sends it `farewell` when the test binary ends, however that ends.
///
/// The death signal of Linux fires when the *thread* that spawned the child ends, and a test's
/// thread may end before a server that other tests share. So one thread, which lives as long as the
/// binary, spawns for all.
pub fn spawn(command: Command, farewell: Signal) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (command, farewell, reply) in inbox {
                let _ = reply.send(spawn_here(command, farewell));
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    spawner
        .send((command, farewell, reply))
        .expect("the spawning thread only ends with the process");
    answer
        .recv()
        .expect("the spawning thread answers each order")
}

fn spawn_here(mut command: Command, farewell: Signal) -> io::Result<Child> {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { command.pre_exec(move || Ok(prctl::set_pdeathsig(farewell)?)) };
    command.spawn()
}

/// Sends a signal to a process. After SIGSTOP it waits until every thread of it stands still, which `kill(2)` does not: on a
/// loaded machine a server answers for a while yet.
pub fn signal(pid: i32, signal: Signal) {
    const PATIENCE: Duration = Duration::from_secs(30);
    kill(Pid::from_raw(pid), signal).unwrap();
    let start = Instant::now();
    while signal == Signal::SIGSTOP && !stands_still(pid) {
        assert!(
            start.elapsed() < PATIENCE,
            "process {pid} does not stand still"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether each thread of a process is stopped or has ended: proc(5), the third field of `stat`.
fn stands_still(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The second field is a name in parentheses, which may hold any character.
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}
