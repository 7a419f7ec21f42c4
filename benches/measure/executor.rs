//! `cotton executor` alone: how soon it talks to its agent.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is started.
pub const STARTS: usize = 30;

/// From the start of the process to its SUBSCRIBE call at the agent, which this plays.
pub fn start_to_subscribe(binary: &Path) -> Duration {
    let sandbox = tempfile::tempdir().unwrap();
    let agent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = agent.local_addr().unwrap();
    let mut command = Command::new(binary);
    command
        .arg("executor")
        .env_clear()
        .env("MESOS_AGENT_ENDPOINT", address.to_string())
        .env("MESOS_FRAMEWORK_ID", "measure-0000")
        .env("MESOS_EXECUTOR_ID", "measure.0")
        .env("MESOS_SLAVE_ID", "measure-S0")
        .env("MESOS_SANDBOX", sandbox.path())
        .env("MESOS_DIRECTORY", sandbox.path())
        .current_dir(sandbox.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let (mut connection, _) = agent.accept().unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut request = Vec::new();
    // The head is enough: what follows is in the same packet.
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        let read = connection.read(&mut bytes).unwrap();
        assert!(read > 0, "the executor said nothing");
        request.extend_from_slice(&bytes[..read]);
    }
    let took = start.elapsed();
    assert!(request.starts_with(b"POST /api/v1/executor"), "{request:?}");
    let _ = connection.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    child.kill().unwrap();
    child.wait().unwrap();
    took
}
