//! Every stream that a real Mesos sent to a scheduler or an executor is read by the clients, event for
//! event.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cotton::mesos::executor::ExecutorEvent;
use cotton::mesos::json;
use cotton::mesos::scheduler::SchedulerEvent;
use cotton::mesos::v1::executor;
use cotton::mesos::v1::scheduler::Event;
use cotton::mesos::v1::scheduler::event::Type;

use super::executor::Client as Executor;
use super::peer::Peer;
use super::scheduler::{Client, take_subscription};
use crate::transcript;

#[tokio::test]
async fn the_client_reads_every_recorded_stream() {
    let mut streams = 0;
    for (file, entries) in transcript::all() {
        let events: Vec<Event> = entries
            .iter()
            .filter(|entry| entry.who == "scheduler" && entry.is_event())
            .map(|entry| json::from_slice(entry.body.as_bytes()).unwrap())
            .collect();
        for stream in split(events) {
            play(&file, &stream).await;
            streams += 1;
        }
    }
    assert!(streams >= 8, "{streams} streams");
}

/// Cuts the events of a file where a new stream begins.
fn split(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut streams: Vec<Vec<Event>> = Vec::new();
    for event in events {
        match streams.last_mut() {
            Some(stream) if event.r#type != Some(Type::Subscribed as i32) => stream.push(event),
            _ => streams.push(vec![event]),
        }
    }
    streams
}

async fn play(file: &str, events: &[Event]) {
    let mut master = Peer::start().await;
    let mut client = Client::start(&master.address);
    // Some files go on with the stream of the file before them.
    let begins = [Type::Subscribed as i32, Type::Error as i32];
    let stream = if begins.contains(&events[0].r#type.unwrap()) {
        master.request().await.stream()
    } else {
        let (_, stream) = take_subscription(&mut master).await;
        client.subscribed().await;
        stream
    };
    for event in events {
        stream.event(event).await;
        let kind = Type::try_from(event.r#type.unwrap()).unwrap();
        if kind == Type::Heartbeat {
            continue;
        }
        let told = client.event().await;
        let expected = match told {
            SchedulerEvent::Subscribed { .. } => Type::Subscribed,
            SchedulerEvent::Offers(_) => Type::Offers,
            SchedulerEvent::Rescind(_) => Type::Rescind,
            SchedulerEvent::Update(_) => Type::Update,
            SchedulerEvent::Failure { .. } => Type::Failure,
            SchedulerEvent::Message { .. } => Type::Message,
            SchedulerEvent::InverseOffers(_) => Type::InverseOffers,
            SchedulerEvent::RescindInverse(_) => Type::RescindInverseOffer,
            SchedulerEvent::OperationStatus(_) => Type::UpdateOperationStatus,
            SchedulerEvent::FailedOver { .. } | SchedulerEvent::Fatal { .. } => Type::Error,
            SchedulerEvent::Disconnected { reason } => panic!("{file}: {kind:?}: {reason}"),
        };
        assert_eq!(kind, expected, "{file}");
    }
}

#[tokio::test]
async fn the_executors_client_reads_every_recorded_stream() {
    let mut streams = 0;
    for (file, entries) in transcript::all() {
        let events = entries
            .iter()
            .filter(|entry| entry.who == "executor" && entry.is_event())
            .map(|entry| json::from_slice::<executor::Event>(entry.body.as_bytes()).unwrap());
        let mut agent = Peer::start().await;
        let mut open = None;
        for event in events {
            let kind = executor::event::Type::try_from(event.r#type.unwrap()).unwrap();
            if kind == executor::event::Type::Subscribed {
                // Another recorded executor is a new process.
                let client = Executor::start(&agent.address);
                open = Some((agent.request().await.stream(), client));
                streams += 1;
            }
            let (stream, client) = open.as_mut().unwrap();
            stream.event(&event).await;
            let expected = match client.event().await {
                ExecutorEvent::Subscribed(_) => executor::event::Type::Subscribed,
                ExecutorEvent::Launch(_) => executor::event::Type::Launch,
                ExecutorEvent::Kill { .. } => executor::event::Type::Kill,
                ExecutorEvent::Acknowledged { .. } => executor::event::Type::Acknowledged,
                ExecutorEvent::Message(_) => executor::event::Type::Message,
                ExecutorEvent::Shutdown => executor::event::Type::Shutdown,
                other => panic!("{file}: {kind:?}: {other:?}"),
            };
            assert_eq!(kind, expected, "{file}");
        }
    }
    assert!(streams >= 6, "{streams} streams");
}
