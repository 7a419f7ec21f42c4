//! The only loop: receive, apply, plan, check, execute, and sleep until the next look is due.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    awaiting, backup_metrics, check,
    event::{Event, RequestToken},
    execute::{Ending, Hands, Input, Waiting},
    explain, plan, report,
    requested::Requested,
    schedule, slot_report,
    state::State,
};
use crate::{
    cluster::{
        explanation::Explanation,
        failover_record::Stage,
        id::{ClusterName, Epoch},
        slot_view::{Left, SlotView},
        unknown_task::{UnknownList, WHAT_TO_DO},
        view::ClusterView,
    },
    http::{
        metrics::Metrics,
        port::{ApiRequest, Views},
    },
    time::Timestamp,
};

/// How many inputs are taken in before the next plan. Planning after each would be right as well;
/// taking what has gathered saves work when much happens at once, and the bound keeps answers prompt.
const MAX_BATCH: usize = 256;

/// The longest sleep. Nothing depends on it: it bounds what a clock that was set back could do.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Turns a request of the API into an event: draws what is random in it.
pub type Door = Box<dyn FnMut(RequestToken, ApiRequest) -> (Event, Waiting) + Send>;

/// What the loop works with.
pub struct Driver {
    /// All that is known.
    pub state: State,
    /// What carries plans out.
    pub hands: Hands,
    /// Where facts and requests arrive.
    pub inputs: mpsc::Receiver<Input>,
    /// Where the API reads.
    pub views: watch::Sender<Views>,
    /// Which version of the list of unknown tasks is shown; 0 before the first.
    pub unknown_shown: u64,
    /// Which version of what is left of deleted clusters is shown; 0 before the first.
    pub left_shown: u64,
    /// What the clusters in `views` ask for.
    pub requested: Requested,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Where clusters go of which a backup is complete, or was found good, as others may be surplus then.
    pub complete: mpsc::Sender<ClusterName>,
    /// Makes events of requests.
    pub door: Door,
    /// The URL below which clusters are found.
    pub discovery_root: String,
}

/// How what is to be seen of a cluster changes.
struct Change {
    name: ClusterName,
    before: Option<Arc<ClusterView>>,
    after: Option<After>,
}

/// What is to be seen of a cluster.
struct After {
    view: ClusterView,
    explanation: Explanation,
    slots: Vec<SlotView>,
}

impl Change {
    fn enter_in(self, views: &mut Views) {
        let Some(After {
            view,
            explanation,
            slots,
        }) = self.after
        else {
            views.clusters.remove_mut(&self.name);
            views.explanations.remove_mut(&self.name);
            views.slots.remove_mut(&self.name);
            return;
        };
        // What is the same stays the same object: it tells those who wait that nothing is new.
        if self.before.as_deref() != Some(&view) {
            views.clusters.insert_mut(self.name.clone(), Arc::new(view));
        }
        views.slots.insert_mut(self.name.clone(), Arc::new(slots));
        views
            .explanations
            .insert_mut(self.name, Arc::new(explanation));
    }
}

impl Driver {
    /// Runs until `stop` or until its term is over.
    ///
    /// # Errors
    /// What makes it impossible to go on.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Ending> {
        let mut next_token = 0;
        self.look(Timestamp::now());
        loop {
            let sleep = self.time_to_sleep(Timestamp::now());
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                input = self.inputs.recv() => match input {
                    Some(input) => Some(input),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(sleep) => None,
            };
            let now = Timestamp::now();
            let mut input = first;
            for _ in 0..MAX_BATCH {
                let Some(current) = input else { break };
                self.take_in(current, &mut next_token, now)?;
                input = self.inputs.try_recv().ok();
            }
            if let Some(current) = input {
                self.take_in(current, &mut next_token, now)?;
            }
            self.look(now);
        }
    }

    fn time_to_sleep(&self, now: Timestamp) -> Duration {
        let due = self.state.next_due().map(|due| due.since(now));
        due.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn take_in(&mut self, input: Input, token: &mut u64, now: Timestamp) -> Result<(), Ending> {
        match input {
            Input::Event(event) => {
                let stored = match &event {
                    Event::Stored { cluster, .. } => Some(cluster.clone()),
                    _ => None,
                };
                let before = stored.as_ref().and_then(|name| self.stage_of(name));
                self.state.apply(event, now);
                if let Some(name) = stored {
                    self.count_failover(&name, before, now);
                }
            }
            Input::Status(status) => {
                self.count(&status);
                let update = super::wire::task_update(&status);
                info!(task_id = %update.task_id, state = ?update.state, message = %update.message, "task update");
                self.state.apply(Event::Task(update), now);
                self.hands.acknowledge(&status);
            }
            Input::Operation(status) => {
                if let Some(update) = self.hands.operation_update(*status) {
                    info!(slot = %update.slot, done = update.done, "operation on a slot");
                    self.state.apply(Event::Operation(update), now);
                }
            }
            Input::Request(request) => {
                *token += 1;
                let (event, waiting) = (self.door)(RequestToken(*token), request);
                self.hands.expect(RequestToken(*token), waiting);
                self.state.apply(event, now);
            }
            Input::End(ending) => return Err(ending),
        }
        Ok(())
    }

    /// One look: plan, check, note, execute, show.
    fn look(&mut self, now: Timestamp) {
        let due = self.state.take_due(now);
        let mut plan = plan::plan(&self.state, &due, now);
        let violations = check::check(&self.state, &plan);
        for violation in &violations {
            error!(cluster = %violation.cluster, rule = violation.rule, "a plan breaks a rule and is not carried out; this is a bug of Cotton, please report it");
        }
        check::refuse(&self.state, &mut plan, &violations);
        self.state.begin(&plan, now);
        for task in self.state.unknown.take_untold() {
            let (task_id, agent) = (&task.task_id, task.agent_id.as_deref().unwrap_or("-"));
            warn!(%task_id, agent, reason = task.reason, "a task runs that no record explains; {WHAT_TO_DO}");
        }
        if let Some(more) = self.state.unknown.take_more() {
            warn!(
                more,
                "more tasks run that no record explains than are listed; {WHAT_TO_DO}"
            );
        }
        self.tell_of_orphans();
        for look in &plan.looks {
            for note in &look.notes {
                info!(cluster = %look.cluster, "{note}");
            }
        }
        self.show(&due);
        for action in plan.actions {
            self.hands.perform(action, &self.state);
        }
    }

    /// Each orphan is told of once.
    fn tell_of_orphans(&mut self) {
        let orphans = &mut self.state.keeping.orphans;
        self.metrics.orphaned_slots.set(orphans.len() as i64);
        for (slot, orphan) in orphans.iter_mut().filter(|(_, orphan)| !orphan.told) {
            orphan.told = true;
            let (owner, host, agent) = (&orphan.owner, &orphan.host, &orphan.agent_id);
            warn!(%slot, cluster = %owner.cluster, incarnation = %owner.incarnation, member = %owner.member, host, agent, has_volume = orphan.has_volume, "resources are reserved for a member that no record explains; they are left alone");
        }
    }

    /// Publishes what has changed to the eye. Only the clusters that something has happened to are looked at,
    /// and nobody who waits for a change is woken without one.
    fn show(&mut self, due: &[ClusterName]) {
        let connected = self.state.mesos.connected;
        let changes: Vec<Change> = due.iter().filter_map(|name| self.change_of(name)).collect();
        for change in &changes {
            let after = change.after.as_ref().map(|after| &after.view);
            self.requested.exchange(change.before.as_deref(), after);
            let before = change.before.as_deref();
            if backup_metrics::tell(&self.metrics, &change.name, before, after) {
                // Whoever finds no place has its turn with all others.
                let _ = self.complete.try_send(change.name.clone());
            }
        }
        self.requested.tell(&self.metrics);
        self.metrics.framework_registered.set(i64::from(connected));
        let unknown = self.unknown_to_show();
        let left = self.left_to_show();
        self.views.send_if_modified(|views| {
            let same = views.loaded
                && views.connected == connected
                && changes.is_empty()
                && unknown.is_none()
                && left.is_none();
            views.loaded = true;
            if let Some(unknown) = unknown {
                views.unknown_tasks = unknown;
            }
            if let Some(left) = left {
                views.left = left;
            }
            views.connected = connected;
            for change in changes {
                change.enter_in(views);
            }
            !same
        });
    }

    /// The tasks that no record explains, if they are others than those that are shown.
    fn unknown_to_show(&mut self) -> Option<Arc<UnknownList>> {
        let version = self.state.unknown.version();
        if std::mem::replace(&mut self.unknown_shown, version) == version {
            return None;
        }
        let list = self.state.unknown.list();
        let all = list.tasks.len() + list.more;
        self.metrics.unknown_tasks.set(all as i64);
        Some(Arc::new(list))
    }

    /// What is left of deleted clusters, and the orphans, if they are others than those that are shown.
    fn left_to_show(&mut self) -> Option<Arc<Left>> {
        let version = self.state.keeping.version();
        let shown = std::mem::replace(&mut self.left_shown, version);
        (shown != version).then(|| Arc::new(slot_report::left(&self.state)))
    }

    /// How what is to be seen of a cluster differs from what is shown, if it does. A cluster that is being
    /// stored for the first time is not to be seen yet, one that was removed is so no longer.
    fn change_of(&self, name: &ClusterName) -> Option<Change> {
        let cluster = self.state.clusters.get(name);
        let stored = cluster.filter(|cluster| cluster.version.is_some());
        let after = stored.map(|cluster| {
            let mut view = report::view(cluster, &self.discovery_root);
            view.standing.backups = schedule::standing(&self.state.policy, &cluster.record);
            let explanation = awaiting::explanation(&self.state, cluster, &view);
            After {
                view,
                explanation,
                slots: slot_report::of_cluster(cluster),
            }
        });
        let shown = self.views.borrow();
        let before = shown.clusters.get(name);
        let explained = shown.explanations.get(name).map(Arc::as_ref);
        let slots = shown.slots.get(name).map(Arc::as_ref);
        let same = before.map(Arc::as_ref) == after.as_ref().map(|after| &after.view)
            && explained == after.as_ref().map(|after| &after.explanation)
            && slots == after.as_ref().map(|after| &after.slots);
        (!same).then(|| Change {
            name: name.clone(),
            before: before.cloned(),
            after,
        })
    }

    fn stage_of(&self, name: &ClusterName) -> Option<(Epoch, Stage)> {
        explain::stage(&self.state.clusters.get(name)?.record)
    }

    /// Counts a failover when the record that names its master is stored, and discovery with it.
    fn count_failover(&self, name: &ClusterName, before: Option<(Epoch, Stage)>, now: Timestamp) {
        let after = self.stage_of(name);
        let cluster = self.state.clusters.get(name);
        let Some(failover) = cluster.and_then(|cluster| cluster.record.failovers.last()) else {
            return;
        };
        if after == before || failover.stage() != Stage::Opened {
            return;
        }
        let took = now.since(failover.times.decided);
        self.metrics.failovers.inc();
        self.metrics.failover_seconds.observe(took.as_secs_f64());
        let (epoch, cause) = (failover.epoch, failover.ending.cause.as_str());
        info!(cluster = %name, %epoch, cause, millis = took.as_millis() as u64, "failed over");
    }

    fn count(&self, status: &crate::mesos::v1::TaskStatus) {
        use crate::mesos::v1::TaskState as S;
        // An update that comes again, as all do until they are acknowledged, counts once.
        if status.reason() == crate::mesos::v1::task_status::Reason::Reconciliation {
            return;
        }
        match status.state() {
            S::TaskFinished => self.metrics.tasks_finished.inc(),
            S::TaskFailed | S::TaskError => self.metrics.tasks_failed.inc(),
            S::TaskKilled => self.metrics.tasks_killed.inc(),
            S::TaskLost
            | S::TaskDropped
            | S::TaskUnreachable
            | S::TaskGone
            | S::TaskGoneByOperator
            | S::TaskUnknown => self.metrics.tasks_lost.inc(),
            S::TaskStaging | S::TaskStarting | S::TaskRunning | S::TaskKilling => 0,
        };
    }
}
