//! `cotton local`: the whole system on one machine, with a stand-in for Mesos.
//!
//! ZooKeeper, the database servers, the scheduler and the executors are the real ones; only Mesos is
//! stood in for, at its HTTP API. A [`master`] and any number of [`agent`]s run as processes of
//! their own, so that each can be killed, stopped and restarted, and [`up`] starts them all and takes
//! everything down again.
//!
//! What real Mesos does and this does not is a mistake of this. Recordings of a real one lie in
//! `tests/fixtures/mesos`, and tests replay them.

pub mod agent;
mod client;
mod duration;
mod fault_domain;
mod files;
mod http;
pub mod master;
mod master_link;
mod reservation;
mod resources;
mod signals;
pub mod up;
mod wire;

/// Reads how many times as fast as real time clocks shall run.
///
/// # Errors
///
/// A sentence for the command line.
pub fn parse_time_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale.is_finite() && (0.01..=1000.0).contains(&scale) => Ok(scale),
        _ => Err("a number from 0.01 to 1000 is needed".to_owned()),
    }
}
