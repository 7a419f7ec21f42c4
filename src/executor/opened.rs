//! What a master does beside serving, when it is open already.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::chain;
use crate::{cluster::id::Epoch, mysql::Server};

/// How long all markers of earlier epochs together may wait for their acknowledgements.
const FILL_DEADLINE: Duration = Duration::from_secs(3600);

/// What a master does when it is open already.
///
/// If it ends in between, another master is elected, which then does this for itself: what is missing is seen in what it
/// has.
pub(super) async fn tidy_up(server: Arc<Server>, cluster: Uuid, epoch: Epoch) {
    forget_source(&server).await;
    let deadline = Instant::now() + FILL_DEADLINE;
    if let Err(error) = server.fill_markers(cluster, epoch, deadline).await {
        warn!(error = %chain(&error), "markers of earlier epochs are missing still; the next master writes them");
    }
}

/// A master forgets whom it followed when it is open already: on a busy disk it takes as long as the rest of the promotion,
/// and only keeps those from wondering who look at its replication status.
///
/// No step meets this: a process that was master is killed before anything else is made of it, unless it has handed its place
/// over, which is not begun before this has ended. A server that ends before it
/// is done starts with its replication stopped and with relay logs of which everything is executed, like any
/// other that followed. What it does next, in a later epoch, is to follow, which throws them away, or to be
/// master again and come here. So it is not tried again either.
async fn forget_source(server: &Server) {
    if let Err(error) = server.forget_source().await {
        warn!(error = %chain(&error), "the master before is not forgotten");
    }
}
