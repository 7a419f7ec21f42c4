//! A scripted executor: this test binary, started by the stand-in's agents.
//!
//! It does what the one of the recordings did: TASK_STARTING and TASK_RUNNING when a task is
//! launched, TASK_KILLED when it is killed, messages sent back, exit on SHUTDOWN; and it subscribes
//! again when its agent is away, with what is not acknowledged.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "an executor has a clock")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cotton::mesos::recordio::Decoder;
use serde_json::{Value, json};

/// Tells this binary that it is an executor, and what it shall do differently: `deaf` ignores
/// SHUTDOWN, `silent` never subscribes, `greedy` takes more memory than it may.
const SCRIPT: &str = "COTTON_TEST_EXECUTOR";

/// The command that starts it.
pub fn command(script: &str) -> Value {
    json!({
        "shell": true, "value": command_line(),
        "environment": {"variables": [{"name": SCRIPT, "value": script}]},
    })
}

/// The same as a line for the shell.
pub fn command_line() -> String {
    let binary = std::env::current_exe().unwrap();
    format!(
        "exec {} --exact local::executor::play --nocapture --test-threads 1",
        binary.display()
    )
}

/// Not a test unless it is started as an executor.
#[test]
fn play() {
    let Ok(script) = std::env::var(SCRIPT).or_else(|_| std::env::var("REC_LOG")) else {
        return;
    };
    write_environment();
    match script.as_str() {
        "silent" => loop {
            std::thread::park();
        },
        "greedy" => {
            let executor = Executor::from_environment(false);
            std::thread::spawn(move || executor.run());
            // Another process takes the memory, as a database server would: tail keeps what it reads
            // until it finds the end of a line.
            let status = std::process::Command::new("tail").arg("/dev/zero").status();
            println!("tail: {status:?}");
            loop {
                std::thread::park();
            }
        }
        _ => Executor::from_environment(script == "deaf").run(),
    }
}

/// For tests that compare them with the recorded ones: the environment and what is in the sandbox.
fn write_environment() {
    let cwd = std::env::current_dir().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&cwd)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let all: BTreeMap<String, String> = std::env::vars().collect();
    std::fs::write("environment.json", serde_json::to_vec(&all).unwrap()).unwrap();
    std::fs::write("names.json", serde_json::to_vec(&names).unwrap()).unwrap();
    println!(
        "executor in {} as {}",
        cwd.display(),
        nix::unistd::geteuid()
    );
}

#[derive(Clone)]
struct Executor {
    agent: String,
    framework_id: String,
    executor_id: String,
    deaf: bool,
    unacknowledged: Arc<Mutex<Vec<Value>>>,
}

impl Executor {
    fn from_environment(deaf: bool) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap();
        Self {
            agent: variable("MESOS_AGENT_ENDPOINT"),
            framework_id: variable("MESOS_FRAMEWORK_ID"),
            executor_id: variable("MESOS_EXECUTOR_ID"),
            deaf,
            unacknowledged: Arc::default(),
        }
    }

    /// Subscribes, again and again, for half a minute without an agent.
    fn run(&self) {
        let mut patience = 150;
        while patience > 0 {
            patience -= 1;
            if let Some(answer) = self.subscribe() {
                patience = 150;
                self.listen(answer);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn post(&self, mut call: Value) -> Option<BufReader<TcpStream>> {
        call["framework_id"] = json!({"value": self.framework_id});
        call["executor_id"] = json!({"value": self.executor_id});
        let body = call.to_string();
        let mut stream = TcpStream::connect(&self.agent).ok()?;
        let head = "POST /api/v1/executor HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\n\
                    Accept: application/json\r\n";
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if !line.contains(" 20") {
            println!("refused: {line}");
            return None;
        }
        while !line.trim().is_empty() {
            line.clear();
            reader.read_line(&mut line).ok()?;
        }
        Some(reader)
    }

    fn subscribe(&self) -> Option<BufReader<TcpStream>> {
        let updates = self.unacknowledged.lock().unwrap().clone();
        self.post(json!({
            "type": "SUBSCRIBE",
            "subscribe": {"unacknowledged_tasks": [], "unacknowledged_updates": updates},
        }))
    }

    /// Reads chunks of records until the agent is gone.
    fn listen(&self, mut answer: BufReader<TcpStream>) {
        let mut decoder = Decoder::new(1 << 24);
        loop {
            let mut size = String::new();
            if answer.read_line(&mut size).is_err() || size.is_empty() {
                return;
            }
            let Ok(length) = usize::from_str_radix(size.trim(), 16) else {
                continue;
            };
            let mut chunk = vec![0; length + 2];
            if answer.read_exact(&mut chunk).is_err() {
                return;
            }
            decoder.feed(&chunk[..length]);
            while let Some(record) = decoder.next().unwrap() {
                self.hear(&serde_json::from_slice(&record).unwrap());
            }
        }
    }

    fn hear(&self, event: &Value) {
        println!("{}", event["type"]);
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open("events.json")
            .unwrap();
        writeln!(log, "{event}").unwrap();
        match event["type"].as_str().unwrap() {
            "LAUNCH" => {
                let task = &event["launch"]["task"];
                if task["data"] == BASE64.encode("crash") {
                    std::process::exit(3);
                }
                self.update(task, json!({"state": "TASK_STARTING"}));
                let labels = json!({"labels": [{"key": "k", "value": "v"}]});
                let data = BASE64.encode("hello");
                self.update(
                    task,
                    json!({"state": "TASK_RUNNING", "data": data, "labels": labels}),
                );
            }
            "KILL" => self.update(
                &event["kill"],
                json!({"state": "TASK_KILLED", "message": "asked to"}),
            ),
            "MESSAGE" => {
                self.post(json!({"type": "MESSAGE", "message": event["message"]}));
            }
            "ACKNOWLEDGED" => {
                let uuid = &event["acknowledged"]["uuid"];
                self.unacknowledged
                    .lock()
                    .unwrap()
                    .retain(|update| update["status"]["uuid"] != *uuid);
            }
            "SHUTDOWN" if !self.deaf => std::process::exit(0),
            _ => {}
        }
    }

    fn update(&self, task: &Value, mut status: Value) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        status["task_id"] = task["task_id"].clone();
        status["executor_id"] = json!({"value": self.executor_id});
        status["source"] = json!("SOURCE_EXECUTOR");
        status["timestamp"] = json!(now);
        status["uuid"] = json!(BASE64.encode(uuid::Uuid::new_v4().as_bytes()));
        let update = json!({"status": status});
        self.unacknowledged.lock().unwrap().push(update.clone());
        self.post(json!({"type": "UPDATE", "update": update}));
    }
}
