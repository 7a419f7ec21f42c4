//! Carrying plans out: the scheduler's hands.
//!
//! Nothing is decided here. Writes to the store run as tasks of their own, one per cluster at a
//! time, and end as events. Calls to Mesos go out one after the other, in the order of the plan; none
//! of them is waited for, because what they bring about arrives as events too.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::{
    action::{Action, Refusal, Reply},
    event::{Event, RequestToken, Version},
    maintenance::{ASKED_AGAIN, ASKED_SOON},
    members::KILL_GRACE_PERIOD,
    placement::Launch,
    retained::{Deed, OperationUpdate},
    state::State,
    storing::{
        STORE_RETRY, chain, deposed, fatal, forget_retained, persist, remove, store_retained,
        undelete,
    },
    undelete::Undeletion,
    wire::{self, TaskTemplate},
};
use crate::{
    cluster::id::ClusterName,
    http::{
        errors::ApiError,
        metrics::Metrics,
        port::{
            BackingUp, Changing, Created, Deleted, FailingOver, Reclaiming, Replacing, Restarting,
            Scaling, SwitchingOver, Undeleting,
        },
    },
    mesos::{
        calls,
        scheduler::{CallError, SchedulerHandle},
        v1::{self, scheduler::Call},
    },
    zookeeper::store::{FRAMEWORK_FORMAT, FrameworkRecord, Store, StoreError},
};

/// What reaches the driver.
#[derive(Debug)]
pub enum Input {
    /// A fact for the core.
    Event(Event),
    /// A status update of a task, to be acknowledged once it is taken in.
    Status(Box<v1::TaskStatus>),
    /// The status of an operation.
    Operation(Box<v1::OperationStatus>),
    /// A request of the API, with the place for its answer.
    Request(crate::http::port::ApiRequest),
    /// The term of this scheduler is over.
    End(Ending),
}

/// Why a scheduler does not lead on. The sentence says what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Another scheduler has taken over, or ZooKeeper went away before the term had begun: this one stands for election
    /// again.
    TermOver(String),
    /// What gets no better by trying again: the process must end.
    Fatal(String),
}

/// Where a request's answer goes.
#[derive(Debug)]
pub enum Waiting {
    /// A creation.
    Create(oneshot::Sender<Result<Created, ApiError>>),
    /// A deletion.
    Delete(oneshot::Sender<Result<Deleted, ApiError>>),
    /// A change.
    Change(oneshot::Sender<Result<Changing, ApiError>>),
    /// A switchover.
    Switchover(oneshot::Sender<Result<SwitchingOver, ApiError>>),
    /// A backup.
    Backup(oneshot::Sender<Result<BackingUp, ApiError>>),
    /// The removal of a backup.
    DeleteBackup(oneshot::Sender<Result<(), ApiError>>),
    /// A failover with the loss of data.
    Failover(oneshot::Sender<Result<FailingOver, ApiError>>),
    /// A deleted cluster that is brought back.
    Undelete(oneshot::Sender<Result<Undeleting, ApiError>>),
    /// An orphaned slot that is given up.
    Reclaim(oneshot::Sender<Result<Reclaiming, ApiError>>),
    /// More members or fewer.
    Scale(oneshot::Sender<Result<Scaling, ApiError>>),
    /// Another member.
    Replace(oneshot::Sender<Result<Replacing, ApiError>>),
    /// A member that is restarted.
    Restart(oneshot::Sender<Result<Restarting, ApiError>>),
}

impl Waiting {
    /// Refuses the request. A client that has gone away needs no answer.
    fn refuse(self, error: ApiError) {
        match self {
            Self::Create(sender) => drop(sender.send(Err(error))),
            Self::Delete(sender) => drop(sender.send(Err(error))),
            Self::Change(sender) => drop(sender.send(Err(error))),
            Self::Switchover(sender) => drop(sender.send(Err(error))),
            Self::Backup(sender) => drop(sender.send(Err(error))),
            Self::DeleteBackup(sender) => drop(sender.send(Err(error))),
            Self::Failover(sender) => drop(sender.send(Err(error))),
            Self::Undelete(sender) => drop(sender.send(Err(error))),
            Self::Reclaim(sender) => drop(sender.send(Err(error))),
            Self::Scale(sender) => drop(sender.send(Err(error))),
            Self::Replace(sender) => drop(sender.send(Err(error))),
            Self::Restart(sender) => drop(sender.send(Err(error))),
        }
    }
}

/// Carries plans out.
pub struct Hands {
    store: Arc<Store>,
    calls: mpsc::UnboundedSender<Call>,
    inputs: mpsc::Sender<Input>,
    template: TaskTemplate,
    metrics: Arc<Metrics>,
    discovery_root: String,
    waiting: HashMap<RequestToken, Waiting>,
    /// Statuses of operations, to be acknowledged when what follows from them is stored.
    operations: HashMap<String, v1::OperationStatus>,
    framework_version: Option<Version>,
}

impl Hands {
    /// Hands on a store and a subscription. `discovery_root` is the URL below which clusters are
    /// found.
    pub fn new(
        store: Arc<Store>,
        mesos: SchedulerHandle,
        inputs: mpsc::Sender<Input>,
        template: TaskTemplate,
        metrics: Arc<Metrics>,
        discovery_root: String,
        framework_version: Option<Version>,
    ) -> Self {
        Self {
            store,
            calls: start_calling(mesos),
            inputs,
            template,
            metrics,
            discovery_root,
            waiting: HashMap::new(),
            operations: HashMap::new(),
            framework_version,
        }
    }

    /// Keeps the place for a request's answer.
    pub fn expect(&mut self, token: RequestToken, waiting: Waiting) {
        self.waiting.insert(token, waiting);
    }

    /// Acknowledges a status update. The core has taken it in; what it means is in the record or
    /// will be told again by reconciliation.
    pub fn acknowledge(&self, status: &v1::TaskStatus) {
        if let Some(call) = calls::acknowledge(status) {
            self.call(call);
        }
    }

    /// Carries out one action.
    pub fn perform(&mut self, action: Action, state: &State) {
        match action {
            Action::StoreFramework { framework_id } => self.store_framework(framework_id),
            Action::Persist {
                record,
                expected,
                password: _,
                launches: _,
                replies: _,
            } => {
                let persist = persist(self.store.clone(), *record, expected);
                self.report(persist);
            }
            Action::Remove {
                cluster,
                expected,
                retained,
            } => {
                self.report(remove(self.store.clone(), cluster, expected, retained));
            }
            Action::Undelete(undeletion) => {
                let Undeletion { record, kept, .. } = *undeletion;
                self.report(undelete(self.store.clone(), record, kept));
            }
            Action::Keep(deed) => self.keep(deed),
            Action::Launch(launches) => self.launch(launches, state),
            Action::Decline {
                offers,
                refuse_seconds,
            } => {
                self.metrics.offers_unused.inc_by(offers.len() as u64);
                self.call(calls::decline(
                    offers,
                    Duration::from_secs_f64(refuse_seconds),
                ));
            }
            Action::Suppress => self.call(calls::suppress()),
            Action::Revive => self.call(calls::revive()),
            Action::Kill { task_id, agent_id } => {
                info!(%task_id, "kill asked for");
                let grace = Some(KILL_GRACE_PERIOD);
                self.call(calls::kill(task_id.to_string(), agent_id.as_deref(), grace));
            }
            Action::Reconcile { tasks } => {
                // Without a task it would be the question for all.
                if !tasks.is_empty() {
                    let named = tasks
                        .into_iter()
                        .map(|(task, agent)| (task.to_string(), Some(agent)));
                    self.call(calls::reconcile(named));
                }
            }
            Action::ReconcileAll => self.call(calls::reconcile([])),
            Action::AcceptInverse { offers } => {
                self.call(calls::accept_inverse(offers, ASKED_AGAIN));
            }
            Action::DeclineInverse { offers } => {
                self.call(calls::decline_inverse(offers, ASKED_SOON));
            }
            Action::Reply(token, reply) => self.reply(token, reply),
        }
    }

    fn call(&self, call: Call) {
        // The receiver lives as long as the process; without it nothing is left to be told.
        let _ = self.calls.send(call);
    }

    /// One ACCEPT for all launches with an offer: it uses the offer up, and what is left of it is offered anew.
    fn launch(&self, launches: Vec<Launch>, state: &State) {
        let mut operations = Vec::new();
        let mut offers: BTreeSet<String> = BTreeSet::new();
        for launch in launches {
            let task = &launch.task;
            let name = task.task_id.cluster();
            let cluster = name.as_ref().and_then(|name| state.clusters.get(name));
            match cluster.and_then(|it| wire::operations(&self.template, &it.record, &launch)) {
                Some(of_launch) => {
                    info!(task_id = %task.task_id, agent = %task.agent_id, host = %task.host, port = task.port, "task launched");
                    self.metrics.tasks_launched.inc();
                    operations.extend(of_launch);
                }
                None => {
                    debug!(task_id = %task.task_id, "launch dropped: the task is no longer wanted");
                }
            }
            offers.insert(launch.offer.id);
        }
        if operations.is_empty() {
            self.call(calls::decline(offers, Duration::ZERO));
        } else {
            self.call(calls::accept(offers, operations, Duration::ZERO));
        }
    }

    fn keep(&mut self, deed: Deed) {
        match deed {
            Deed::Store {
                retained,
                expected,
                replies: _,
            } => {
                self.report(store_retained(self.store.clone(), retained, expected));
            }
            Deed::Forget {
                incarnation,
                expected,
            } => self.report(forget_retained(self.store.clone(), incarnation, expected)),
            Deed::Release { offer, slots } => {
                for slot in slots.keys() {
                    info!(%slot, agent = %offer.agent_id, host = %offer.host, "slot released: its volume is destroyed");
                }
                let operations = wire::release(&offer, &slots);
                self.call(calls::accept([offer.id], operations, Duration::ZERO));
            }
            Deed::Acknowledge { operation } => {
                let status = self.operations.remove(&operation);
                if let Some(call) = status.as_ref().and_then(calls::acknowledge_operation) {
                    self.call(call);
                }
            }
        }
    }

    /// What an operation's status means. One that means that the operation was carried out is acknowledged when that is
    /// stored, any other one now.
    pub fn operation_update(&mut self, status: v1::OperationStatus) -> Option<OperationUpdate> {
        let update = wire::operation_update(&status);
        match &update {
            Some(update) if update.done => {
                self.operations.insert(update.operation.clone(), status);
            }
            _ => {
                if let Some(call) = calls::acknowledge_operation(&status) {
                    self.call(call);
                }
            }
        }
        update
    }

    fn store_framework(&self, framework_id: String) {
        let (store, expected) = (self.store.clone(), self.framework_version);
        let record = FrameworkRecord {
            format: FRAMEWORK_FORMAT,
            framework_id,
        };
        self.report(async move {
            loop {
                match store.set_framework(&record, expected).await {
                    Ok(_) => return Input::Event(Event::FrameworkStored),
                    Err(error @ StoreError::Deposed) => return deposed(error),
                    Err(error) => warn!(error = %chain(&error), "store the framework id"),
                }
                // An uncertain answer, or another version: the id may stand there already.
                match store.framework().await {
                    Ok(Some((stored, _))) if stored == record => {
                        return Input::Event(Event::FrameworkStored);
                    }
                    Ok(Some((stored, version))) if Some(version) != expected => {
                        return fatal(format!(
                            "another scheduler has stored the framework id {}; is a second scheduler running with the same --zk-url?",
                            stored.framework_id
                        ));
                    }
                    Ok(_) | Err(_) => tokio::time::sleep(STORE_RETRY).await,
                }
            }
        });
    }

    fn report(&self, work: impl Future<Output = Input> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let input = work.await;
            // Without a driver there is nobody to be told.
            let _ = inputs.send(input).await;
        });
    }

    fn reply(&mut self, token: RequestToken, reply: Reply) {
        let url = |name: &ClusterName| format!("{}/{name}", self.discovery_root);
        let Some(waiting) = self.waiting.remove(&token) else {
            return;
        };
        // A client that has gone away needs no answer.
        match (waiting, reply) {
            (Waiting::Create(sender), Reply::Created { name, password }) => {
                let created = Created {
                    cluster_password: password,
                    cluster_url: url(&name),
                };
                let _ = sender.send(Ok(created));
            }
            (Waiting::Delete(sender), Reply::Deleting { name }) => {
                let _ = sender.send(Ok(Deleted {
                    cluster_url: url(&name),
                }));
            }
            (
                Waiting::Change(sender),
                Reply::Changed {
                    name,
                    changed,
                    course,
                },
            ) => {
                let _ = sender.send(Ok(Changing {
                    cluster_url: url(&name),
                    changed,
                    course,
                }));
            }
            (
                Waiting::Restart(sender),
                Reply::Restarting {
                    name,
                    member,
                    task_id,
                    note,
                },
            ) => {
                let _ = sender.send(Ok(Restarting {
                    cluster_url: url(&name),
                    member,
                    task_id,
                    note,
                }));
            }
            (
                Waiting::Switchover(sender),
                Reply::SwitchingOver {
                    name,
                    to,
                    switchover,
                },
            ) => {
                let _ = sender.send(Ok(SwitchingOver {
                    cluster_url: url(&name),
                    to,
                    switchover: switchover.map(|switchover| *switchover),
                }));
            }
            (Waiting::Backup(sender), Reply::BackingUp { name, backup }) => {
                let _ = sender.send(Ok(BackingUp {
                    cluster_url: url(&name),
                    backup: *backup,
                }));
            }
            (Waiting::DeleteBackup(sender), Reply::MayDeleteBackup) => {
                let _ = sender.send(Ok(()));
            }
            (Waiting::Failover(sender), Reply::FailingOver { name, prospect }) => {
                let _ = sender.send(Ok(FailingOver {
                    cluster_url: url(&name),
                    prospect: *prospect,
                }));
            }
            (Waiting::Undelete(sender), Reply::Undeleting { name, incarnation }) => {
                let _ = sender.send(Ok(Undeleting {
                    cluster_url: url(&name),
                    incarnation,
                }));
            }
            (Waiting::Reclaim(sender), Reply::Reclaiming { slot, whose, lost }) => {
                let _ = sender.send(Ok(Reclaiming { slot, whose, lost }));
            }
            (
                Waiting::Scale(sender),
                Reply::Scaling {
                    name,
                    from,
                    to,
                    durability,
                },
            ) => {
                let _ = sender.send(Ok(Scaling {
                    cluster_url: url(&name),
                    from,
                    to,
                    durability,
                }));
            }
            (
                Waiting::Replace(sender),
                Reply::Replacing {
                    name,
                    member,
                    replacement,
                },
            ) => {
                let _ = sender.send(Ok(Replacing {
                    cluster_url: url(&name),
                    member,
                    replacement,
                }));
            }
            (waiting, Reply::Refused(refusal)) => waiting.refuse(api_error(refusal)),
            (
                Waiting::Create(_)
                | Waiting::Delete(_)
                | Waiting::Change(_)
                | Waiting::Switchover(_)
                | Waiting::Backup(_)
                | Waiting::DeleteBackup(_)
                | Waiting::Failover(_)
                | Waiting::Undelete(_)
                | Waiting::Reclaim(_)
                | Waiting::Scale(_)
                | Waiting::Replace(_)
                | Waiting::Restart(_),
                Reply::Created { .. }
                | Reply::Deleting { .. }
                | Reply::Changed { .. }
                | Reply::SwitchingOver { .. }
                | Reply::BackingUp { .. }
                | Reply::MayDeleteBackup
                | Reply::FailingOver { .. }
                | Reply::Undeleting { .. }
                | Reply::Reclaiming { .. }
                | Reply::Scaling { .. }
                | Reply::Replacing { .. }
                | Reply::Restarting { .. },
            ) => {
                warn!("a request was answered with the answer to another one");
            }
        }
    }
}

/// How long a REVIVE that was lost waits before it is made again.
const REVIVED_AGAIN: Duration = Duration::from_secs(1);

/// Sends calls one after the other. One that fails is not repeated: a launch that got lost is found
/// by its deadline, and its offer given back then; a kill is asked for again. But without REVIVE no offer would come any more, and nothing
/// else would tell: it is repeated for as long as the subscription lasts under which it was to be made.
fn start_calling(mesos: SchedulerHandle) -> mpsc::UnboundedSender<Call> {
    // What fills this is bounded by the tasks and offers that there are.
    let (sender, mut receiver) = mpsc::unbounded_channel::<Call>();
    tokio::spawn(async move {
        while let Some(call) = receiver.recv().await {
            let revives = call.r#type() == v1::scheduler::call::Type::Revive;
            while let Err(error) = mesos.call(call.clone()).await {
                warn!(error = %chain(&error), "call Mesos");
                let may_be_lost = matches!(
                    error,
                    CallError::Uncertain { .. } | CallError::NotSent { .. }
                );
                if !revives || !may_be_lost {
                    break;
                }
                tokio::time::sleep(REVIVED_AGAIN).await;
            }
        }
    });
    sender
}

fn api_error(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Exists(name) => ApiError::Exists(name),
        Refusal::BeingDeleted(name) => ApiError::BeingDeleted(name),
        Refusal::Unknown(name) => ApiError::UnknownCluster(name.to_string()),
        Refusal::NothingKept(name) => ApiError::NothingKept(name),
        Refusal::UnknownSlot(slot) => ApiError::UnknownSlot(slot),
        Refusal::PasswordMissing => ApiError::PasswordMissing,
        Refusal::PasswordWrong => ApiError::PasswordWrong,
        Refusal::NotRegistered => ApiError::NotRegistered,
        Refusal::NotPossible(sentence) => ApiError::NotPossible(sentence),
        Refusal::LossNotAccepted(prospect) => ApiError::LossNotAccepted(prospect.sentences()),
    }
}
