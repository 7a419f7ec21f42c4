//! Child processes that cannot outlive the test binary.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};

use nix::sys::prctl;
use nix::sys::signal::Signal;

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
