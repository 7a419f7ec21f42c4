//! Narrow histories: what one rule is there for, in the right order, with chance in its times.
//!
//! The weather of ordinary histories seldom brings the two or three faults together that a single rule guards against.
//! A [`Family`] does: it waits until the cluster is well, lets its faults come within a second or so of each other, mends
//! them, and begins again. A share of all histories is of this kind, so that the law is tried by them as well; and
//! `mutations.rs` breaks each rule in the family that was made for it.

mod elections;
mod masters;
mod planned;
mod switchovers;
mod voters;

use std::rc::Rc;

use super::{
    setup::{Setup, Weather},
    world::{CLIENT, MESOS, MILLISECOND, SCHEDULER, SECOND, World, ZOOKEEPER, note},
};
use crate::cluster::{
    flavour::Flavour,
    id::{Epoch, MemberId},
    record::ClusterRecord,
    voters::Durability,
};

/// What a narrow history is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The last writes are on one voter alone, which is silent when the master ends.
    LoneWitness,
    /// A master that nobody hears collects a tail, and comes back when its successor has written little.
    LongTail,
    /// A voter is launched again, and its ZooKeeper server lags behind.
    OldGoal,
    /// The same, while its disk takes the promise late.
    LatePromise,
    /// A master is heard by members alone that do not vote.
    HeardByOthers,
    /// Voters have received much that is not applied when the master ends, and its successor soon after.
    Backlog,
    /// A master that was replaced comes back before its lease ends.
    DeposedReturns,
    /// A former master holds something of its own, and its successor waits for its marker's acknowledgement.
    Quarantine,
    /// A voter loses its data while the other one does not hear the master, which ends then.
    DataLost,
    /// The task of a master that waits for acknowledgements is killed.
    TaskKilled,
    /// A voter that still receives leaves the voters.
    VoterLeaves,
    /// A master that waits for acknowledgements is cut off from all but its clients.
    Isolated,
    /// The same with `async`.
    AsyncIsolated,
    /// The same, and its executor stands still.
    AsyncUnattended,
    /// A switchover is asked for, and something fails in the middle of it.
    Switchover,
    /// A master that was asked to hand over goes on, and comes back when it was replaced.
    SwitchoverReplaced,
    /// Members are restarted, and something fails after one of the steps.
    Restarted,
    /// The same while members get another configuration.
    Changed,
    /// The same while the durability is changed.
    DurabilityChanged,
    /// The same while another member comes in the place of one.
    Replaced,
    /// The same while members come and go.
    Scaled,
    /// The same while an agent is taken away, announced or not, and a member is restarted.
    Drained,
    /// Automation is paused, and something fails.
    Paused,
}

impl Family {
    pub const ALL: &[Self] = &[
        Self::LoneWitness,
        Self::LongTail,
        Self::OldGoal,
        Self::LatePromise,
        Self::HeardByOthers,
        Self::Backlog,
        Self::DeposedReturns,
        Self::Quarantine,
        Self::DataLost,
        Self::TaskKilled,
        Self::VoterLeaves,
        Self::Isolated,
        Self::AsyncIsolated,
        Self::AsyncUnattended,
        Self::Switchover,
        Self::SwitchoverReplaced,
        Self::Restarted,
        Self::Changed,
        Self::DurabilityChanged,
        Self::Replaced,
        Self::Scaled,
        Self::Drained,
        Self::Paused,
    ];

    /// Makes the setup of a seed that of a narrow history.
    pub fn narrow(self, mut setup: Setup) -> Setup {
        setup.weather = Weather::Scene(self);
        let drawn = setup.durability;
        setup.durability = Durability::Majority;
        // Other scenes are about something else.
        setup.switchover_every = None;
        setup.membership_every = None;
        setup.maintenance_every = None;
        setup.changes_every = None;
        setup.durability_every = None;
        setup.nodes = 3;
        setup.clients += 2;
        setup.pause = setup.pause / 20 + MILLISECOND;
        setup.faults_for = setup.faults_for.max(40 * SECOND);
        // Whoever applies more slowly than others write never gets well.
        setup.lag = setup.lag.min(100);
        setup.disks_fail = false;
        setup.deleted_at = None;
        setup.messages_get_lost = false;
        match self {
            Self::OldGoal | Self::LatePromise => setup.volumes = true,
            Self::DataLost => setup.volumes = false,
            Self::HeardByOthers => {
                setup.nodes = 5;
                setup.flavour = Flavour::Mariadb;
            }
            Self::Backlog => {
                setup.nodes = 5;
                setup.flavour = Flavour::Mysql;
                setup.lag = 5_000;
                setup.pause += 50 * MILLISECOND;
            }
            Self::VoterLeaves => setup.voter_patience = 2 * SECOND,
            Self::AsyncIsolated | Self::AsyncUnattended => {
                setup.durability = Durability::Async;
                setup.election_timeout = SECOND;
            }
            Self::Switchover | Self::DurabilityChanged => {
                setup.durability = drawn;
                setup.election_timeout = setup.election_timeout.min(2 * SECOND);
            }
            Self::Restarted | Self::Changed | Self::Drained => setup.volumes = true,
            Self::Replaced | Self::Scaled | Self::Paused => {}
            Self::LoneWitness
            | Self::LongTail
            | Self::DeposedReturns
            | Self::Quarantine
            | Self::TaskKilled
            | Self::SwitchoverReplaced
            | Self::Isolated => {}
        }
        let more = match self {
            // Another member may come first.
            Self::Changed | Self::Replaced | Self::Scaled | Self::Drained => 2,
            _ => 0,
        };
        setup.agents = setup.nodes as usize + more;
        setup
    }
}

/// Who plays in a scene: executors, by their index.
#[derive(Debug, Clone)]
struct Cast {
    epoch: Epoch,
    master: usize,
    /// The other voters, in any order.
    voters: Vec<usize>,
}

impl World {
    /// Plays scenes of a family, each when the cluster is well.
    pub fn scenes_begin(&mut self, family: Family) {
        if !self.faults_go_on {
            return;
        }
        let Some(cast) = self.cast() else {
            return self.after(100 * MILLISECOND, move |world| world.scenes_begin(family));
        };
        self.faults += 1;
        note!(self, "scene: {family:?} with {cast:?}");
        let lasts = match family {
            Family::LoneWitness => self.lone_witness(cast),
            Family::LongTail => self.long_tail(cast),
            Family::OldGoal => self.old_goal(cast, false),
            Family::LatePromise => self.old_goal(cast, true),
            Family::HeardByOthers => self.heard_by_others(cast),
            Family::Backlog => self.backlog(cast),
            Family::DeposedReturns => self.deposed_returns(cast),
            Family::Quarantine => self.quarantine(cast),
            Family::DataLost => self.data_lost(cast),
            Family::TaskKilled => self.task_killed(cast),
            Family::VoterLeaves => self.voter_leaves(cast),
            Family::Isolated | Family::AsyncIsolated => self.isolated(cast, false),
            Family::AsyncUnattended => self.isolated(cast, true),
            Family::Switchover => self.switchover(cast),
            Family::SwitchoverReplaced => self.switchover_replaced(cast),
            Family::Restarted => self.restarted(cast),
            Family::Changed => self.changes(cast),
            Family::DurabilityChanged => self.durability_changed(cast),
            Family::Replaced => self.replaced(cast),
            Family::Scaled => self.scaled(cast),
            Family::Drained => self.drained(cast),
            Family::Paused => self.paused(cast),
        };
        self.after(lasts, move |world| {
            if world.faults_go_on {
                note!(world, "the scene ends");
                world.mend();
                let pause = world.chance.between(SECOND, 4 * SECOND);
                world.after(pause, move |world| world.scenes_begin(family));
            }
        });
    }

    /// The members in their places, if the cluster is well.
    fn cast(&mut self) -> Option<Cast> {
        let (record, _) = self.zookeeper.record.clone()?;
        let elected = record.elected().filter(|elected| elected.opened)?;
        let well = record.published.master == Some(elected.member)
            && record.published.slaves.len() + 1 == self.setup.nodes as usize
            && record.change.is_none()
            && record.voters.members.values().all(Option::is_some)
            && record.voters.members.len() >= self.setup.nodes.min(3) as usize;
        if !well {
            return None;
        }
        let master = self.in_place(elected.member)?;
        let mut voters = Vec::new();
        for member in record.voters.members.keys() {
            if *member != elected.member {
                voters.push(self.in_place(*member)?);
            }
        }
        for last in (1..voters.len()).rev() {
            voters.swap(last, self.chance.below(last as u64 + 1) as usize);
        }
        Some(Cast {
            epoch: record.epoch,
            master,
            voters,
        })
    }

    /// The executor of a member whose server runs.
    fn in_place(&self, member: MemberId) -> Option<usize> {
        let mut executors = self.executors.iter();
        executors.position(|it| {
            let runs = it.process.is_some_and(|p| self.processes[p].alive);
            it.member == member && it.alive && runs && it.session.connected
        })
    }

    fn host_of(&self, executor: usize) -> usize {
        self.executors[executor].host
    }

    /// Nothing gets through between two places.
    fn part(&mut self, a: usize, b: usize) {
        self.block(&[(a, b), (b, a)], true);
    }

    /// Nothing gets through between a place and all the others, but for those that are kept.
    fn cut_off(&mut self, place: usize, keep: &[usize]) {
        let others = (0..self.setup.agents).chain([SCHEDULER, ZOOKEEPER, MESOS, CLIENT]);
        let others = others.filter(|other| *other != place && !keep.contains(other));
        let ways: Vec<(usize, usize)> = others.flat_map(|o| [(place, o), (o, place)]).collect();
        self.block(&ways, true);
    }

    /// The server is killed; its executor can still say so, and then nothing is heard of its host.
    fn kill_and_cut_off(&mut self, executor: usize) {
        if let Some(process) = self.executors[executor].process {
            self.kill_process(process);
        }
        let host = self.host_of(executor);
        let delay = self.chance.between(25 * MILLISECOND, 70 * MILLISECOND);
        self.after(delay, move |world| {
            if world.faults_go_on {
                world.cut_off(host, &[]);
            }
        });
    }

    /// Waits for something to come, looking all the time, and does something then; if it comes in time.
    fn when(
        &mut self,
        within: u64,
        come: impl Fn(&ClusterRecord) -> bool + 'static,
        then: impl FnOnce(&mut Self) + 'static,
    ) {
        if !self.faults_go_on {
            return;
        }
        let record = self.zookeeper.record.as_ref();
        let record = record.map(|(record, _)| Rc::clone(record));
        if record.is_some_and(|record| come(&record)) {
            return then(self);
        }
        if let Some(left) = within.checked_sub(MILLISECOND) {
            self.after(MILLISECOND, move |world| world.when(left, come, then));
        }
    }

    /// Does something within a time, unless all is being mended already.
    fn within(&mut self, least: u64, most: u64, deed: impl FnOnce(&mut Self) + 'static) {
        let delay = self.chance.between(least, most);
        self.after(delay, move |world| {
            if world.faults_go_on {
                deed(world);
            }
        });
    }

    /// Who is elected, if somebody is.
    fn elected_executor(&self) -> Option<usize> {
        let (record, _) = self.zookeeper.record.as_ref()?;
        self.in_place(record.elected()?.member)
    }
}

/// Whether a later epoch than this has a master.
fn elected_after(epoch: Epoch) -> impl Fn(&ClusterRecord) -> bool {
    move |record| record.epoch > epoch && record.elected().is_some()
}
