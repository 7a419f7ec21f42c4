//! Goals and reports: how scheduler and executors talk.
//!
//! There are no messages that could get lost, only nodes and watches, and whoever was away reads
//! again. [`GoalWatch`] and [`ReportWriter`] are the executor's side, [`ReportWatch`] the
//! scheduler's; goals are written by the store, together with the records that explain them.

mod goal_watch;
mod report_watch;
mod report_writer;

use std::time::Duration;

pub use goal_watch::{GoalSeen, GoalState, GoalWatch};
pub use report_watch::{GoneKind, ReportEvent, ReportWatch};
pub use report_writer::{ReportTooLarge, ReportWriter};
use tokio::task::JoinHandle;

/// The pause after an answer that was an error: short against everything that waits for a goal or a
/// report, long enough not to burden a server that is in trouble.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct OwnedTask(pub(super) JoinHandle<()>);

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
