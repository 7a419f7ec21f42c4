//! Goal: the committed Mesos messages are what `proto/` says, and they read all that a real Mesos
//! was recorded to write. Method: generate again and compare; decode every recorded frame.
//!
//! `COTTON_REGENERATE=1 cargo test --test it proto::` writes the generated files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;

use cotton::mesos::json;
use cotton::mesos::v1::{executor, master, scheduler};
use prost::{Message as _, Name};
use prost_reflect::DynamicMessage;
use protox::prost_reflect::prost_types::FileDescriptorSet;

use crate::transcript::{self, Entry};

const FILES: [&str; 4] = [
    "mesos.proto",
    "scheduler.proto",
    "executor.proto",
    "master.proto",
];

fn at(path: &str) -> PathBuf {
    crate::support::in_project(path)
}

fn compile(with_comments: bool) -> FileDescriptorSet {
    protox::Compiler::new([at("proto")])
        .unwrap()
        .include_source_info(with_comments)
        .open_files(FILES)
        .unwrap()
        .file_descriptor_set()
}

/// One file: the messages of `mesos.v1`, with a module for each package below it.
fn generate() -> String {
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    let requests = compile(true)
        .file
        .into_iter()
        .map(|file| {
            let package: Vec<_> = file.package().split('.').map(str::to_owned).collect();
            (prost_build::Module::from_parts(package), file)
        })
        .collect();
    let mut text = String::new();
    let mut generated: Vec<_> = config.generate(requests).unwrap().into_iter().collect();
    generated.sort_by(|left, right| left.0.cmp(&right.0));
    for (module, code) in generated {
        let name = module.parts().last().unwrap();
        match name {
            "v1" => text = format!("{code}{text}"),
            name => text.push_str(&format!("pub mod {name} {{\n{code}}}\n")),
        }
    }
    format!("// Generated from proto/*.proto by tests/it/proto.rs; see there.\n\n{text}")
}

fn compare(path: &str, made: &[u8]) {
    let path = at(path);
    if std::env::var_os("COTTON_REGENERATE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    assert!(
        std::fs::read(&path).unwrap() == made,
        "{} is not what proto/ says: COTTON_REGENERATE=1 cargo test --test it proto::",
        path.display()
    );
}

#[test]
fn committed_messages_are_what_proto_says() {
    compare(
        "src/mesos/v1.descriptor.bin",
        &compile(false).encode_to_vec(),
    );
    compare("src/mesos/v1.rs", generate().as_bytes());
}

/// What Mesos wrote must be the same after reading it and writing it again.
fn survives<M: Name + Default>(entry: &Entry, from: &str) {
    let recorded: serde_json::Value = serde_json::from_str(&entry.body).unwrap();
    let message: M = json::from_value(&recorded).unwrap_or_else(|error| panic!("{from}: {error}"));
    let written: serde_json::Value = serde_json::from_str(&json::to_string(&message)).unwrap();
    assert_eq!(recorded, written, "{from}");
    let binary: M = json::from_protobuf(&message.encode_to_vec()).unwrap();
    assert_eq!(written, json::value_of(&binary), "{from}: through protobuf");
}

#[test]
fn every_recorded_event_survives_reading_and_writing() {
    let mut events = 0;
    for (file, entries) in transcript::all() {
        for entry in entries.iter().filter(|entry| entry.is_event()) {
            let from = format!("{file} at {} {}", entry.time, entry.head);
            match entry.who.as_str() {
                "scheduler" => survives::<scheduler::Event>(entry, &from),
                "executor" => survives::<executor::Event>(entry, &from),
                other => panic!("{from}: who is {other}?"),
            }
            events += 1;
        }
    }
    assert!(events > 140, "only {events} events were found");
}

#[test]
fn every_recorded_call_decodes() {
    let mut calls = 0;
    for (file, entries) in transcript::all() {
        // The wrong calls are answered by the stand-in's tests.
        if file.starts_with("02-bad-calls") {
            continue;
        }
        for entry in entries.iter().filter(|entry| entry.is_call()) {
            let from = format!("{file} at {} {}", entry.time, entry.head);
            let body = entry.body.as_bytes();
            let error = match entry.who.as_str() {
                "scheduler" => json::from_slice::<scheduler::Call>(body).err(),
                "executor" => json::from_slice::<executor::Call>(body).err(),
                "operator" => json::from_slice::<master::Call>(body).err(),
                other => panic!("{from}: who is {other}?"),
            };
            assert!(error.is_none(), "{from}: {}", error.unwrap());
            calls += 1;
        }
    }
    assert!(calls > 100, "only {calls} calls were found");
}

#[test]
fn recorded_protobuf_is_what_its_text_says() {
    let mut files = 0;
    for entry in std::fs::read_dir(at("tests/fixtures/mesos/protobuf")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let descriptor = json::descriptor::<scheduler::Event>();
        let expected = DynamicMessage::parse_text_format(descriptor, &text).unwrap();
        let event: scheduler::Event = json::from_protobuf(&bytes).unwrap();
        assert_eq!(json::dynamic(&event), expected, "{}", path.display());
        assert_eq!(
            event.encode_to_vec(),
            bytes,
            "{}: written again",
            path.display()
        );
        files += 1;
    }
    assert_eq!(files, 7);
}

#[test]
fn wrong_bodies_get_the_recorded_sentences() {
    let sentence = |body: &str| {
        json::from_slice::<scheduler::Call>(body.as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        sentence("not json"),
        "Failed to parse body into JSON: syntax error at line 1 near: ot json"
    );
    assert_eq!(
        sentence(r#"{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root"}}}"#),
        "Failed to convert JSON into Call protobuf: Missing required fields: subscribe.framework_info.name"
    );
    assert_eq!(
        sentence(r#"{"type": "SUBSCRIBE", "subscribe": [1]}"#),
        "Failed to convert JSON into Call protobuf: Not expecting a JSON array for field 'subscribe'"
    );
    assert_eq!(
        json::from_protobuf::<scheduler::Call>(b"garbage")
            .unwrap_err()
            .to_string(),
        "Failed to parse body into Call protobuf"
    );
    let call: scheduler::Call =
        json::from_slice(br#"{"type": "NOSUCH", "unknown": {"a": 1}}"#).unwrap();
    assert_eq!(call.r#type, None);
}
