//! What the scheduler asks of the world, and why.

use uuid::Uuid;

use super::{
    event::{RequestToken, Version},
    failover::Awaited,
    fitness::Unfit,
    membership::Outlook,
    placement::Launch,
    retained::Deed,
    undelete::Undeletion,
};
use crate::{
    cluster::{
        backup::PendingBackup,
        change::{Changed, Course},
        data_loss::{self, Prospect},
        id::{ClusterName, MemberId, TaskId},
        record::ClusterRecord,
        retained::{Orphaned, Retained},
        slot::SlotId,
        switchover::Switchover,
        voters::Durability,
    },
    secret::Secret,
    time::Timestamp,
};

/// What a look at the state has come to.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to do now.
    pub actions: Vec<Action>,
    /// What was found in each cluster that was looked at, including why nothing is done.
    pub looks: Vec<Look>,
    /// When to look again at what is kept of deleted clusters, even if nothing happens.
    pub keep_again_at: Option<Timestamp>,
}

/// What was found in one cluster.
#[derive(Debug)]
pub struct Look {
    /// The cluster.
    pub cluster: ClusterName,
    /// What is awaited.
    pub awaited: Awaited,
    /// When to look again even if nothing happens.
    pub again_at: Option<Timestamp>,
    /// Which voters are out of their place, and since when.
    pub unfit: Unfit,
    /// The way out that an operator has, if the cluster cannot go on by itself.
    pub offer: Option<data_loss::Offer>,
    /// The members that come and go.
    pub membership: Outlook,
    /// What has happened and was decided, for the log: a sentence each.
    pub notes: Vec<String>,
}

impl Look {
    /// A look at a cluster that has found nothing yet.
    pub fn at(cluster: ClusterName) -> Self {
        Self {
            cluster,
            awaited: Awaited::default(),
            again_at: None,
            unfit: Unfit::new(),
            offer: None,
            membership: Outlook::default(),
            notes: Vec::new(),
        }
    }

    /// Asks for another look at `time`, if no earlier one is due.
    pub fn wake_by(&mut self, time: Timestamp) {
        self.again_at = Some(self.again_at.map_or(time, |at| at.min(time)));
    }
}

/// One thing to do. Each can be repeated without harm.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Store the framework id, so that a successor subscribes as the same framework.
    StoreFramework {
        /// The id.
        framework_id: String,
    },
    /// Store a cluster's record, and with it, in one transaction, its goal and discovery.
    Persist {
        /// The record.
        record: Box<ClusterRecord>,
        /// The version that it replaces; `None` for a new cluster.
        expected: Option<Version>,
        /// The password of a new cluster, for the state's own copy.
        password: Option<Secret>,
        /// Tasks to launch once the record is stored.
        launches: Vec<Launch>,
        /// Requests to answer once the record is stored.
        replies: Vec<(RequestToken, Reply)>,
    },
    /// Remove a cluster's nodes, discovery last.
    Remove {
        /// The cluster.
        cluster: ClusterName,
        /// The version of its record.
        expected: Version,
        /// What is kept of it, in the same transaction.
        retained: Option<Box<Retained>>,
    },
    /// Bring a deleted cluster back: store its record, with goal and discovery, and remove what is kept of it, in one transaction.
    Undelete(Box<Undeletion>),
    /// Something about slots that nobody is to use any more.
    Keep(Deed),
    /// Launch tasks whose records are stored, all with one offer: the message to Mesos uses it up.
    Launch(Vec<Launch>),
    /// Give offers back.
    Decline {
        /// The offers.
        offers: Vec<String>,
        /// For how long Mesos is not to offer the same again.
        refuse_seconds: f64,
    },
    /// Want no offers for now.
    Suppress,
    /// Want offers again.
    Revive,
    /// Ask the agent to kill a task.
    Kill {
        /// The task.
        task_id: TaskId,
        /// Its agent.
        agent_id: Option<String>,
    },
    /// Ask the master for the states of tasks.
    Reconcile {
        /// The tasks with their agents. At least one.
        tasks: Vec<(TaskId, String)>,
    },
    /// Ask the master for the states of all tasks that it knows.
    ReconcileAll,
    /// Say that agents may be taken away as planned.
    AcceptInverse {
        /// The inverse offers.
        offers: Vec<String>,
    },
    /// Say that agents are still needed.
    DeclineInverse {
        /// The inverse offers.
        offers: Vec<String>,
    },
    /// Answer a request.
    Reply(RequestToken, Reply),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The cluster is recorded.
    Created {
        /// Its name.
        name: ClusterName,
        /// Its user's password.
        password: Secret,
    },
    /// The deletion is recorded.
    Deleting {
        /// The cluster's name.
        name: ClusterName,
    },
    /// The deleted cluster is recorded again.
    Undeleting {
        /// The name that it has now.
        name: ClusterName,
        /// Its incarnation.
        incarnation: Uuid,
    },
    /// The intention to destroy a slot that was kept is recorded.
    Reclaiming {
        /// The slot.
        slot: SlotId,
        /// Whose it was, by its record or its labels.
        whose: Orphaned,
        /// What is lost with it, as a sentence without its end.
        lost: String,
    },
    /// The failover with the loss of data is recorded.
    FailingOver {
        /// The cluster's name.
        name: ClusterName,
        /// What it comes to, as things stand.
        prospect: Box<Prospect>,
    },
    /// The switchover is recorded, or there is nothing to do.
    SwitchingOver {
        /// The cluster's name.
        name: ClusterName,
        /// Who is to be master.
        to: MemberId,
        /// The switchover; `None` if that member is the master already.
        switchover: Option<Box<Switchover>>,
    },
    /// The backup is recorded.
    BackingUp {
        /// The cluster's name.
        name: ClusterName,
        /// The backup.
        backup: Box<PendingBackup>,
    },
    /// A backup may be removed: its cluster does not need it, and whoever asks is the owner.
    MayDeleteBackup,
    /// The change is recorded.
    Changed {
        /// The cluster's name.
        name: ClusterName,
        /// What differs from before; nothing if it was so already.
        changed: Vec<Changed>,
        /// What follows for the members.
        course: Course,
    },
    /// The restart of a member is recorded.
    Restarting {
        /// The cluster's name.
        name: ClusterName,
        /// The member.
        member: MemberId,
        /// The task that is to end.
        task_id: TaskId,
        /// What it means for clients, as a sentence.
        note: String,
    },
    /// How many members there are to be is recorded, or it is so already.
    Scaling {
        /// The cluster's name.
        name: ClusterName,
        /// How many it was to have before.
        from: u32,
        /// How many it is to have.
        to: u32,
        /// What an acknowledged write is worth, which the number does not change.
        durability: Durability,
    },
    /// That a member is to be replaced is recorded.
    Replacing {
        /// The cluster's name.
        name: ClusterName,
        /// The member.
        member: MemberId,
        /// The one that takes its place.
        replacement: Option<MemberId>,
    },
    /// The request is refused.
    Refused(Refusal),
}

/// Why a request is refused. The API has the sentences.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The name is taken.
    Exists(ClusterName),
    /// The cluster is being deleted.
    BeingDeleted(ClusterName),
    /// There is no such cluster.
    Unknown(ClusterName),
    /// No deleted cluster of this name is kept.
    NothingKept(ClusterName),
    /// Nothing is known of a slot of this id.
    UnknownSlot(String),
    /// The password is missing.
    PasswordMissing,
    /// The password is wrong.
    PasswordWrong,
    /// Mesos has not taken the framework in.
    NotRegistered,
    /// It is not possible as things are: why, and what to do, as a sentence.
    NotPossible(String),
    /// It may lose data, and the request does not say that this is accepted.
    LossNotAccepted(Box<Prospect>),
}
