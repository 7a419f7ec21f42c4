//! The clients of the Mesos v1 API against masters and agents that a test speaks for.

mod detection;
mod executor;
mod peer;
mod recordings;
mod scheduler;
mod standin;
