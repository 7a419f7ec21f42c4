//! The stand-in for Mesos: against the recordings of a real one, and where those do not reach.

mod agents;
mod executor;
mod machine;
mod masters;
mod recordings;
mod replay;
mod restarts;
mod up;
mod updates;
mod volumes;
mod web;
