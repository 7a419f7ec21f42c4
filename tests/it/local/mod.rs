//! The stand-in for Mesos: against the recordings of a real one, and where those do not reach.

mod agents;
mod executor;
mod machine;
mod maintenance;
mod masters;
mod operations;
mod recordings;
mod replay;
mod restarts;
mod up;
mod updates;
mod volumes;
mod web;
