//! The door between the HTTP side and the scheduler's core.
//!
//! Changes go in through a bounded queue, each with a place for its answer. The core publishes what there is
//! to see; reading that costs it nothing.

use std::{sync::Arc, time::Duration};

use rpds::RedBlackTreeMapSync;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use super::{
    errors::ApiError, executor_binary::ExecutorBinary, leader::ToLeader, metrics::Metrics,
};
use crate::{
    backup::store::Store,
    cluster::{
        backup::{BackupId, BackupStore, BackupsLeft, PendingBackup, Restore},
        change::{Change, Changed, Course},
        data_loss::Prospect,
        explanation::Explanation,
        id::{ClusterName, MemberId, TaskId},
        retained::Orphaned,
        slot::SlotId,
        slot_view::{Left, SlotView},
        spec::{ClusterSpec, Rules},
        switchover::Switchover,
        unknown_task::UnknownList,
        view::ClusterView,
        voters::Durability,
    },
    secret::Secret,
};

/// How many changes may wait for the core. It takes one as soon as it has planned the one before, which is
/// a matter of milliseconds; a longer queue would only hide that it stands still.
pub const MAX_WAITING_REQUESTS: usize = 256;

/// How many may wait for a change of a cluster at the same time. It is half of the connections that the server
/// keeps, so that they never take those of everybody else; who finds no place is answered at once.
pub const MAX_PATIENT_READERS: usize = 256;

/// How long a change may take until it is durable. ZooKeeper's session timeouts are below it, so an ensemble
/// that elects a new leader meanwhile does not make requests fail.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What the HTTP side knows of the scheduler.
#[derive(Clone)]
pub struct SchedulerPort {
    /// Where changes are asked for; made with room for [`MAX_WAITING_REQUESTS`].
    pub requests: mpsc::Sender<ApiRequest>,
    /// What there is to see.
    pub views: watch::Receiver<Views>,
    /// Places for those who wait until a cluster changes; made with [`MAX_PATIENT_READERS`].
    pub patient: Arc<Semaphore>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The binary that agents fetch, unless `--executor-uri` names another place.
    pub executor: Option<Arc<ExecutorBinary>>,
    /// The password of the administrator's account: what nobody owns is given up by whoever knows it.
    pub administrator: Arc<Secret>,
    /// What this installation adds to the rules for new clusters.
    pub rules: Arc<Rules>,
    /// The store of backups, if there is one.
    pub backups: Option<Arc<BackupAccess>>,
    /// The way to the scheduler that leads, where that is another one.
    pub leader: ToLeader,
}

/// The store of backups.
#[derive(Debug)]
pub struct BackupAccess {
    /// As executors are told of it.
    pub settings: BackupStore,
    /// For looking into it.
    pub store: Store,
}

/// A change that is asked for.
#[derive(Debug)]
pub enum ApiRequest {
    /// Make a cluster.
    Create {
        /// What it is to be.
        spec: ClusterSpec,
        /// The password of its user; `None` lets the scheduler make one.
        password: Option<Secret>,
        /// The backup that it is made from.
        restore: Option<Box<Restore>>,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Created>,
    },
    /// Delete a cluster.
    Delete {
        /// Its name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Deleted>,
    },
    /// Change a cluster's settings.
    Change {
        /// Its name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// What is to be different.
        change: Change,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Changing>,
    },
    /// Decide nothing for a cluster from now on, or go on.
    Pause {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// Whether it is to be paused.
        paused: bool,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Changing>,
    },
    /// Make another member the master.
    Switchover {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// Who is to be master; the best voter if nobody is named.
        to: Option<MemberId>,
        /// Where the answer goes, once the request is durable.
        reply: Reply<SwitchingOver>,
    },
    /// Bring a deleted cluster back.
    Undelete {
        /// The name that it had.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// The name that it is to have; the same if nothing is said.
        target: Option<ClusterName>,
        /// Which of several deleted clusters of that name; the one that was deleted last if nothing is said.
        incarnation: Option<Uuid>,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Undeleting>,
    },
    /// Destroy a slot that no record explains. The administrator has said so.
    Reclaim {
        /// The slot.
        slot: SlotId,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Reclaiming>,
    },
    /// Make a backup.
    Backup {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// Where it goes.
        store: Box<BackupStore>,
        /// Where the answer goes, once the request is durable.
        reply: Reply<BackingUp>,
    },
    /// Whether a backup may be removed from the store; or that it was.
    DeleteBackup {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// The backup.
        id: BackupId,
        /// What is left after it was removed; `None` asks whether it may be.
        left: Option<BackupsLeft>,
        /// Where the answer goes, once what is left is stored.
        reply: Reply<()>,
    },
    /// Have more members or fewer.
    Scale {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// How many.
        num_nodes: u32,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Scaling>,
    },
    /// End a member's task and launch another one on its slot.
    Restart {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// The member.
        member: MemberId,
        /// Whether writes may wait until it is back.
        force: bool,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Restarting>,
    },
    /// Have another member in the place of one.
    Replace {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// The one.
        member: MemberId,
        /// Where the answer goes, once the request is durable.
        reply: Reply<Replacing>,
    },
    /// Elect a master without the voters that are missing.
    Failover {
        /// The cluster's name.
        name: ClusterName,
        /// The password of its user.
        password: Option<Secret>,
        /// Whether it is accepted that acknowledged writes may be lost.
        accept_data_loss: bool,
        /// Where the answer goes, once the request is durable.
        reply: Reply<FailingOver>,
    },
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// A creation that was accepted.
#[derive(Debug, Clone)]
pub struct Created {
    /// The password of the cluster's user.
    pub cluster_password: Secret,
    /// Where clients find master and slaves.
    pub cluster_url: String,
}

/// A deletion that was accepted.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// What is gone once the cluster is.
    pub cluster_url: String,
}

/// A change that was accepted.
#[derive(Debug, Clone)]
pub struct Changing {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// What differs from before.
    pub changed: Vec<Changed>,
    /// What follows for the members.
    pub course: Course,
}

/// The restart of a member that was accepted.
#[derive(Debug, Clone)]
pub struct Restarting {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The member.
    pub member: MemberId,
    /// The task that is to end.
    pub task_id: TaskId,
    /// What it means for clients, as a sentence.
    pub note: String,
}

/// A switchover that was accepted.
#[derive(Debug, Clone)]
pub struct SwitchingOver {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// Who is to be master.
    pub to: MemberId,
    /// The switchover; `None` if that member is the master already.
    pub switchover: Option<Switchover>,
}

/// A deleted cluster that comes back.
#[derive(Debug, Clone)]
pub struct Undeleting {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// Its incarnation.
    pub incarnation: Uuid,
}

/// A slot that is given up.
#[derive(Debug, Clone)]
pub struct Reclaiming {
    /// The slot.
    pub slot: SlotId,
    /// Whose it was, by its record or its labels.
    pub whose: Orphaned,
    /// What is lost with it, as a sentence without its end.
    pub lost: String,
}

/// A backup that was accepted.
#[derive(Debug, Clone)]
pub struct BackingUp {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The backup.
    pub backup: PendingBackup,
}

/// A number of members that was accepted.
#[derive(Debug, Clone)]
pub struct Scaling {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// How many there were to be before.
    pub from: u32,
    /// How many there are to be.
    pub to: u32,
    /// What an acknowledged write is worth, which the number does not change.
    pub durability: Durability,
}

/// The replacement of a member that was accepted.
#[derive(Debug, Clone)]
pub struct Replacing {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The member that is to leave.
    pub member: MemberId,
    /// The one that takes its place; `None` if fewer are wanted by now.
    pub replacement: Option<MemberId>,
}

/// A failover with the loss of data that was accepted.
#[derive(Debug, Clone)]
pub struct FailingOver {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// What it comes to, as things stand.
    pub prospect: Prospect,
}

/// What there is to see of the scheduler. A clone is a snapshot: it costs the same however many clusters there
/// are, and what the core changes afterwards costs it no copy of the rest.
#[derive(Debug, Clone, Default)]
pub struct Views {
    /// Whether the stored state was read. Before that nothing can be said of any cluster, least of all that
    /// there is none of a name: somebody may be waiting for exactly that.
    pub loaded: bool,
    /// Whether the framework is registered with a Mesos master.
    pub connected: bool,
    /// The clusters.
    pub clusters: RedBlackTreeMapSync<ClusterName, Arc<ClusterView>>,
    /// Why each of them is as it is.
    pub explanations: RedBlackTreeMapSync<ClusterName, Arc<Explanation>>,
    /// The slots of the clusters.
    pub slots: RedBlackTreeMapSync<ClusterName, Arc<Vec<SlotView>>>,
    /// What is left of deleted clusters, and the slots that no record explains.
    pub left: Arc<Left>,
    /// Tasks that no record explains.
    pub unknown_tasks: Arc<UnknownList>,
}

impl SchedulerPort {
    /// What there is to see of the clusters.
    ///
    /// # Errors
    /// [`ApiError::Starting`] as long as the state was not read.
    pub fn clusters(&self) -> Result<Views, ApiError> {
        let views = self.views.borrow().clone();
        if views.loaded {
            Ok(views)
        } else {
            Err(ApiError::Starting)
        }
    }

    /// Asks for a change and waits for its answer.
    ///
    /// # Errors
    /// What the core answers; [`ApiError::Starting`] before it has read its state; [`ApiError::Overloaded`] when too many wait already;
    /// [`ApiError::Stopping`] when there is no core any more; [`ApiError::Unanswered`] when it takes too long.
    pub async fn ask<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> ApiRequest,
    ) -> Result<T, ApiError> {
        self.clusters()?;
        let (reply, answer) = oneshot::channel();
        self.requests
            .try_send(request(reply))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => ApiError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => ApiError::Stopping,
            })?;
        match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            // The core has dropped the request or gone on without an answer: whether it was stored is unknown.
            Ok(Err(_)) | Err(_) => Err(ApiError::Unanswered),
        }
    }
}
