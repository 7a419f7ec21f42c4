//! The scheduler's shell in the simulated world: the real core, and hands that write to the models of ZooKeeper and Mesos.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    mysqld::Deeds,
    setup::SESSION_TIMEOUT,
    steps::server_kind,
    world::{MILLISECOND, SCHEDULER, SECOND, World, ZOOKEEPER, note},
    zookeeper::{Session, Transacted},
};
use crate::{
    cluster::{
        configuration::Package,
        control::{Authentication, Installer},
        id::{ClusterName, TaskId},
        record::ClusterRecord,
        size::Size,
        spec::ClusterSpec,
        timings::Timings,
    },
    rules::Rules,
    scheduler::{
        action::Action,
        check::check,
        event::{
            CreateRequest, Event, FreshCluster, RequestToken, StoredCluster, StoredRetained,
            Version,
        },
        plan::plan,
        retained::Keeping,
        state::{Policy, State},
    },
    secret::Secret,
};

/// `--replace-after`, in microseconds.
pub const REPLACE_AFTER: u64 = 900 * SECOND;

/// How long to wait before the store is asked again.
const STORE_RETRY: u64 = 250 * MILLISECOND;

const LONGEST_SLEEP: u64 = 30 * SECOND;

/// A run of a scheduler.
#[derive(Debug)]
pub struct Scheduler {
    pub state: State,
    pub alive: bool,
    pub paused: bool,
    inbox: Deeds,
    pub session: Session,
    /// What it has moved ZooKeeper's fence to.
    pub fence: u64,
    /// The reports that it was told of, each with the change that it knows.
    pub known: BTreeMap<TaskId, u64>,
    wake: u64,
    /// How far its clock is ahead, in microseconds.
    pub clock: i64,
    created: bool,
}

pub fn cluster_name() -> ClusterName {
    #[expect(clippy::unwrap_used, reason = "the name is valid")]
    "orders".parse().unwrap()
}

impl World {
    /// The newest scheduler, which is the leading one.
    pub fn leader(&self) -> Option<usize> {
        let newest = self.schedulers.len().checked_sub(1)?;
        self.schedulers[newest].alive.then_some(newest)
    }

    /// A scheduler takes over as soon as it reaches ZooKeeper.
    pub fn scheduler_starts(&mut self) {
        if !self.zookeeper.up || !self.both_open(SCHEDULER, ZOOKEEPER) {
            return self.after(SECOND, |world| world.scheduler_starts());
        }
        let policy = Policy {
            election_timeout: std::time::Duration::from_micros(self.setup.election_timeout),
            session_timeout: SESSION_TIMEOUT,
            spread_patience: Some(std::time::Duration::from_secs(30)),
            spread_by: crate::scheduler::placement::SpreadBy::default(),
            volumes: self.setup.volumes,
            keep_deleted: std::time::Duration::from_micros(self.setup.keep_deleted),
            voter_patience: std::time::Duration::from_micros(self.setup.voter_patience),
            replace_after: std::time::Duration::from_micros(REPLACE_AFTER),
            voter_lag: std::time::Duration::from_secs(60),
            packages: vec![Package {
                name: "next".to_owned(),
                installer: Installer::Installed {
                    mysqld: "/opt/next/bin/mysqld".to_owned(),
                },
                server: server_kind(self.setup.flavour),
            }],
            timings: Timings::default(),
            failover_limit: 100,
            failover_window: std::time::Duration::from_secs(60),
            archive: None,
            rules: self.bend.rules(),
            backups: None,
            chance: 0.5,
        };
        let stored = self
            .zookeeper
            .record
            .iter()
            .map(|(record, version)| StoredCluster {
                record: (**record).clone(),
                version: Version(*version),
                password: Secret::new("p"),
            });
        let framework = self.zookeeper.framework.then(|| "framework".to_owned());
        let mut state = State::new(policy, framework, stored.collect(), Default::default());
        let kept = self.zookeeper.retained.iter();
        let kept = kept.map(|(kept, version)| StoredRetained {
            retained: (**kept).clone(),
            version: Version(*version),
            password: Some(Secret::new("p")),
        });
        state.keeping = Keeping::new(kept.collect(), Default::default());
        self.zookeeper.fence += 1;
        let clock = self.schedulers.last().map_or(0, |former| former.clock);
        self.schedulers.push(Scheduler {
            state,
            alive: true,
            paused: false,
            inbox: Deeds::default(),
            session: Session::default(),
            fence: self.zookeeper.fence,
            known: BTreeMap::new(),
            wake: 0,
            clock,
            created: false,
        });
        let scheduler = self.schedulers.len() - 1;
        note!(self, "scheduler {scheduler} starts");
        self.relink();
        self.subscribe(scheduler);
        self.look_around(scheduler);
    }

    pub fn scheduler_ends(&mut self, scheduler: usize, why: &str) {
        let it = &mut self.schedulers[scheduler];
        if !it.alive {
            return;
        }
        it.alive = false;
        it.inbox.0.clear();
        note!(self, "scheduler {scheduler} ends: {why}");
        self.relink();
        if self.leader().is_none() {
            // A supervisor starts it again.
            let delay = self.chance.between(200 * MILLISECOND, 5 * SECOND);
            self.after(delay, |world| {
                if world.leader().is_none() {
                    world.scheduler_starts();
                }
            });
        }
    }

    pub fn pause_scheduler(&mut self, scheduler: usize, paused: bool) {
        let it = &mut self.schedulers[scheduler];
        if it.paused == paused || !it.alive {
            return;
        }
        it.paused = paused;
        if !paused {
            for deed in std::mem::take(&mut it.inbox.0) {
                self.at(self.now, deed);
            }
        }
        note!(
            self,
            "scheduler {scheduler} {}",
            if paused { "stands still" } else { "goes on" }
        );
        self.relink();
    }

    pub fn on_scheduler(&mut self, scheduler: usize, deed: impl FnOnce(&mut Self) + 'static) {
        let it = &mut self.schedulers[scheduler];
        if !it.alive {
            return;
        }
        if it.paused {
            it.inbox.0.push(Box::new(move |world: &mut Self| {
                world.on_scheduler(scheduler, deed);
            }));
        } else {
            deed(self);
        }
    }

    pub fn scheduler_hears(&mut self, scheduler: usize, event: Event) {
        self.on_scheduler(scheduler, move |world| {
            let now = world.timestamp(world.schedulers[scheduler].clock);
            let subscribed = matches!(event, Event::Subscribed { .. });
            if matches!(
                event,
                Event::ControlLost | Event::ControlRestored | Event::MesosLost
            ) || subscribed
            {
                note!(world, "scheduler {scheduler} hears {event:?}");
            }
            world.schedulers[scheduler].state.apply(event, now);
            if subscribed && world.zookeeper.record.is_none() && !world.history.deleted {
                world.ask_for_cluster(scheduler);
            }
            world.look_around(scheduler);
        });
    }

    fn ask_for_cluster(&mut self, scheduler: usize) {
        if std::mem::replace(&mut self.schedulers[scheduler].created, true) {
            return;
        }
        let uuid = self.uuid();
        let now = self.timestamp(self.schedulers[scheduler].clock);
        let Ok(user) = "shop".to_owned().try_into() else {
            return;
        };
        let request = CreateRequest {
            restore: None,
            token: RequestToken(1),
            spec: ClusterSpec {
                name: cluster_name(),
                user,
                num_nodes: self.setup.nodes,
                size: Size::DEFAULT,
                durability: self.setup.durability,
                replace_after: None,
                backup_schedule: None,
                backup_keep: None,
                my_cnf: None,
                package: None,
            },
            given_password: None,
            fresh: FreshCluster {
                uuid,
                password: Secret::new("p"),
                sealed_password: String::new(),
                authentication: Authentication {
                    mysql: String::new(),
                    mariadb: String::new(),
                },
            },
        };
        let state = &mut self.schedulers[scheduler].state;
        state.apply(Event::Create(Box::new(request)), now);
    }

    /// One look: plan, check, note, execute, and when to look again.
    pub fn look_around(&mut self, scheduler: usize) {
        loop {
            let it = &mut self.schedulers[scheduler];
            if !it.alive {
                return;
            }
            let clock = it.clock;
            let now = self.timestamp(clock);
            let it = &mut self.schedulers[scheduler];
            let due = it.state.take_due(now);
            let plan = plan(&it.state, &due, now);
            // Under a broken rule the harm itself is looked for.
            let violations = match it.state.policy.rules == Rules::LAW {
                true => check(&it.state, &plan),
                false => Vec::new(),
            };
            it.state.begin(&plan, now);
            for look in &plan.looks {
                for text in &look.notes {
                    note!(self, "scheduler {scheduler}: {text}");
                }
                if !look.awaited.reason.is_empty() {
                    note!(
                        self,
                        "scheduler {scheduler} awaits: {}",
                        look.awaited.reason
                    );
                }
            }
            if let Some(violation) = violations.first() {
                let rule = violation.rule;
                return self.wrong(|| format!("a plan breaks a rule: {rule}"));
            }
            if plan.actions.is_empty() {
                break;
            }
            for action in plan.actions {
                self.carry_out(scheduler, action);
            }
        }
        let it = &mut self.schedulers[scheduler];
        it.wake += 1;
        let (wake, clock) = (it.wake, it.clock);
        let due = it.state.next_due();
        let now = self.timestamp(clock);
        let sleep = due.map_or(LONGEST_SLEEP, |due| due.since(now).as_micros() as u64);
        self.after(sleep.clamp(MILLISECOND, LONGEST_SLEEP), move |world| {
            if world.schedulers[scheduler].wake == wake {
                world.on_scheduler(scheduler, move |world| world.look_around(scheduler));
            }
        });
    }

    /// What `execute.rs` does.
    fn carry_out(&mut self, scheduler: usize, action: Action) {
        match action {
            Action::StoreFramework { .. } => {
                let delay = self.network() * 2;
                self.after(delay, move |world| {
                    world.zookeeper.framework = true;
                    world.scheduler_hears(scheduler, Event::FrameworkStored);
                });
            }
            Action::Persist {
                record, expected, ..
            } => {
                let expected = expected.map(|Version(version)| version);
                self.persist(scheduler, Rc::new(*record), expected);
            }
            Action::Remove {
                expected, retained, ..
            } => self.remove(scheduler, expected.0, retained.map(|it| Rc::new(*it))),
            Action::Keep(deed) => self.keep(scheduler, deed),
            Action::Undelete(undeletion) => self.undelete(scheduler, *undeletion),
            Action::Launch(launches) => self.launch(scheduler, launches),
            Action::Decline {
                offers,
                refuse_seconds,
            } => self.decline(scheduler, &offers, refuse_seconds),
            Action::Suppress => self.want_offers(scheduler, false),
            Action::Revive => self.want_offers(scheduler, true),
            Action::Kill { task_id, agent_id } => {
                self.check_kill(scheduler, &task_id);
                self.kill_task(scheduler, task_id, agent_id.unwrap_or_default());
            }
            Action::Reconcile { tasks } => self.reconcile(scheduler, Some(tasks)),
            Action::ReconcileAll => self.reconcile(scheduler, None),
            Action::AcceptInverse { offers } => self.answer_inverse(scheduler, &offers, true),
            Action::DeclineInverse { offers } => self.answer_inverse(scheduler, &offers, false),
            Action::Reply(..) => {}
        }
    }

    /// Stores a record, whatever it takes: `execute::persist`.
    fn persist(&mut self, scheduler: usize, record: Rc<ClusterRecord>, expected: Option<i32>) {
        let delay = self.network();
        self.after(delay, move |world| {
            let it = &world.schedulers[scheduler];
            // What was sent before a scheduler ended, stood still or lost its connection may still arrive.
            let arrives = it.session.connected
                || world.zookeeper.up
                    && world.open(SCHEDULER, ZOOKEEPER)
                    && world.chance.percent(50);
            let connected = world.schedulers[scheduler].session.connected;
            let result = if arrives {
                world.transact(scheduler, &record, expected)
            } else {
                Transacted::Uncertain
            };
            let lost = !connected || world.setup.answers_get_lost && world.chance.percent(2);
            let result = if lost { Transacted::Uncertain } else { result };
            let delay = world.network();
            world.after(delay, move |world| {
                world.on_scheduler(scheduler, move |world| {
                    world.persisted(scheduler, record, expected, result);
                });
            });
        });
    }

    fn persisted(
        &mut self,
        scheduler: usize,
        record: Rc<ClusterRecord>,
        expected: Option<i32>,
        result: Transacted,
    ) {
        match result {
            Transacted::Stored(version) => {
                let (cluster, version) = (cluster_name(), Version(version));
                self.scheduler_hears(scheduler, Event::Stored { cluster, version });
            }
            Transacted::Deposed => self.scheduler_ends(scheduler, "another one has taken over"),
            Transacted::Conflict | Transacted::Uncertain => {
                // Read before anything else.
                let found = self.zookeeper.record.clone();
                let connected = self.schedulers[scheduler].session.connected;
                match found {
                    Some((stored, version)) if connected && stored == record => {
                        let stored = Transacted::Stored(version);
                        return self.persisted(scheduler, record, expected, stored);
                    }
                    _ if connected && result == Transacted::Conflict => {
                        return self.scheduler_ends(scheduler, "the record was changed");
                    }
                    _ => {}
                }
                self.after(STORE_RETRY, move |world| {
                    world.on_scheduler(scheduler, move |world| {
                        if world.schedulers[scheduler].session.connected {
                            world.persist(scheduler, record, expected);
                        } else {
                            let uncertain = Transacted::Uncertain;
                            world.persisted(scheduler, record, expected, uncertain);
                        }
                    });
                });
            }
        }
    }
}
