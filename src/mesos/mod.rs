//! The Mesos v1 API: its messages, how they are framed and how they look as JSON.
//!
//! [`v1`] holds the messages, generated from `proto/*.proto` and committed, so that nobody needs a
//! protobuf compiler; a test generates them again and compares. [`recordio`] cuts a stream into
//! messages. [`json`] writes and reads the JSON form that Mesos speaks beside protobuf.
//!
//! [`scheduler`] is the client of a master: it finds the one that leads ([`address`] says where to
//! look), subscribes, passes events on and makes [`calls`]. [`executor`] is the client of an agent.
//! Both speak protobuf over the connections of [`connection`].
//!
//! Source of the facts: the `.proto` files under `include/mesos/v1` of Apache Mesos and the pages
//! "Scheduler HTTP API" and "Executor HTTP API" of its documentation.

pub mod address;
pub mod authentication;
mod caller;
pub mod calls;
pub mod connection;
mod detect;
pub mod duration;
pub mod environment;
pub mod executor;
pub mod json;
pub mod recordio;
pub mod scheduler;
mod updates;

#[allow(
    missing_docs,
    deprecated,
    clippy::all,
    rustdoc::all,
    reason = "generated from proto/*.proto by tests/it/proto.rs"
)]
#[rustfmt::skip]
pub mod v1;
