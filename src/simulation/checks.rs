//! Looking at the world from outside: what must never be, whatever Cotton thinks.

use std::rc::Rc;

use super::{
    history::{Kind, TransactionId},
    mysqld::{Data, Process},
    setup::Weather,
    world::{SECOND, World, note},
};
use crate::cluster::{
    gtid::Position,
    id::Epoch,
    record::{ClusterRecord, Elected, Mastership},
    voters::Durability,
};

/// For how long discovery may name a master that does not serve, while nothing keeps the scheduler from seeing that:
/// a session timeout, what comes on top after an outage, and the checker's own pace.
const DETECTION: u64 = 20 * SECOND;

/// By how much a scheduler's clock jumps at the most.
pub const LARGEST_JUMP: u64 = 60 * SECOND;

/// For how long a master that was replaced may let clients in: its lease, a check, and this checker's own pace.
const LEASE: u64 = 10 * SECOND;

/// How often discovery is looked at.
pub const LOOK_EVERY: u64 = SECOND;

impl World {
    fn promises_durability(&self) -> bool {
        self.history.promised && !self.history.deleted
    }

    /// A durability that is changed ends the promise when `async` rules, and begins it when a master is open under the rule
    /// of `majority`: for what is acknowledged from then on, and for what that master has of the earlier writes.
    fn follow_durability(&mut self, record: &ClusterRecord) {
        let opened = record.elected().filter(|elected| elected.opened);
        match record.rule() {
            Durability::Async => self.history.promised = false,
            // By such a clock the end of earlier masters is measured, which go on to acknowledge by themselves otherwise.
            Durability::Majority if self.history.promised || self.clocks_jumped => {}
            Durability::Majority => {
                let mut data = self.data.iter();
                let is_elected = |data: &&Data| opened.is_some_and(|it| it.data == data.id);
                let Some(master) = data.find(is_elected) else {
                    return;
                };
                self.history.promised = true;
                self.history
                    .acknowledged
                    .retain(|id| master.has.contains(*id));
                self.history.read.retain(|id| master.has.contains(*id));
            }
        }
    }

    /// Whether nothing fails that a server may notice. An `async` master that misses a voter fences while it is out of
    /// touch with ZooKeeper.
    fn nothing_may_be_noticed(&self) -> bool {
        self.setup.weather == Weather::Control
            && self.promises_durability()
            && self.setup.switchover_every.is_none()
            && self.setup.membership_every.is_none()
            && (self.setup.deleted_at.is_none() || self.setup.undeleted_after.is_none())
            && self.setup.maintenance_every.is_none()
            && self.setup.changes_every.is_none()
            && self.setup.durability_every.is_none()
    }

    /// Where discovery says that the master is.
    pub fn discovered_master(&self) -> Option<(usize, u16)> {
        let (record, _) = self.zookeeper.record.as_ref()?;
        let task = record.task(record.published.master?)?;
        Some((task.host.trim_start_matches('h').parse().ok()?, task.port))
    }

    /// A master has told a client that its write is done.
    pub fn acknowledge(&mut self, process: usize, index: usize) {
        let data = self.processes[process].data;
        let id = self.data[data].binlog[index];
        self.history.acknowledged.push(id);
        // I2: what a deposed master acknowledges is what its successor has.
        let Some((epoch, master)) = self.history.elected else {
            return;
        };
        if self.promises_durability() && master != data && !self.data[master].has.contains(id) {
            self.wrong(|| format!("I2: {id} was acknowledged by mysqld {process}, and the master of {epoch} does not have it"));
        }
    }

    /// A master lets clients in.
    pub fn master_has_opened(&mut self, executor: usize, process: usize) {
        let Some(epoch) = self.executors[executor]
            .step
            .as_ref()
            .and_then(|step| step.step.epoch())
        else {
            return;
        };
        // An acknowledgement that was on its way for long lets one open that is deposed already and does not know it. It is
        // no new master: nobody finds it, and what it acknowledges must be what its successor has.
        let mut opened = self.history.opened.iter();
        if self.promises_durability() && opened.any(|(later, _)| *later > epoch) {
            return;
        }
        let data = self.processes[process].data;
        self.history.opened.push((epoch, data));
        if !self.history.promised {
            self.only_one_serves(process);
        } else {
            let missing = self.missing_on(data);
            if let Some(id) = missing {
                self.wrong(|| format!("I1: the new master of {epoch} does not have {id}, which was acknowledged or read"));
            }
        }
    }

    /// Where no acknowledgement is waited for, a master opens when every earlier one has ended: else clients write to both. One
    /// of a time when acknowledgements were waited for gets none.
    fn only_one_serves(&mut self, master: usize) {
        let serves = |process: &Process| {
            process.alive && process.admitted && !process.read_only && process.k == 0
        };
        let mut others = (0..self.processes.len()).filter(|process| *process != master);
        let other = others.find(|process| serves(&self.processes[*process]));
        // A successor measures the lease of its predecessor by the scheduler's clock.
        if let Some(other) = other.filter(|_| !self.clocks_jumped) {
            self.wrong(|| format!("I2: mysqld {master} opens while mysqld {other} serves"));
        }
    }

    /// What is elected has everything that was acknowledged: all others are compared with it, and give up what it lacks.
    fn is_elected(&mut self, epoch: Epoch, elected: &Elected) {
        let Some(data) = self.data.iter().position(|data| data.id == elected.data) else {
            return;
        };
        self.history.elected = Some((epoch, data));
        if !self.promises_durability() {
            return;
        }
        let has = &self.data[data].has;
        let mut owed = self.history.acknowledged.iter().chain(&self.history.read);
        let lacks = owed.find(|id| {
            let gtid = &self.history.transactions[**id].gtid;
            !has.contains(**id) || !elected.history.contains(gtid)
        });
        if let Some(id) = lacks.copied() {
            let member = elected.member;
            self.wrong(|| format!("I1: member {member} is elected in {epoch}, and its history lacks {id}, which was acknowledged or read"));
        }
    }

    /// A master that was replaced lets clients in no longer than its lease, as long as its executor runs.
    fn look_for_replaced_masters(&mut self) {
        if self.history.deleted {
            return;
        }
        let Some((_, master)) = self.history.opened.last().copied() else {
            return;
        };
        for process in 0..self.processes.len() {
            let it = &self.processes[process];
            let executor = &self.executors[it.executor];
            let serves = it.alive && !it.hung && it.admitted && !it.read_only && it.data != master;
            let disk_answers = self.disk_stalls_until[it.host] <= self.now;
            if !serves || !executor.alive || executor.paused || !disk_answers {
                self.replaced.remove(&process);
            } else if self.now > *self.replaced.entry(process).or_insert(self.now) + LEASE {
                return self.wrong(|| {
                    format!("I2: mysqld {process} was replaced long ago, and still lets clients in")
                });
            }
        }
    }

    fn missing_on(&self, data: usize) -> Option<TransactionId> {
        let has = &self.data[data].has;
        let owed = self.history.acknowledged.iter().chain(&self.history.read);
        owed.copied().find(|id| !has.contains(*id))
    }

    /// A data directory is about to be set aside.
    pub fn set_aside(&mut self, data: usize) {
        note!(
            self,
            "data {data} of member {} is set aside",
            self.data[data].member
        );
        self.data[data].gone = true;
        if !self.promises_durability() {
            return;
        }
        // I4: what it holds and what counts is held by those whose acknowledgements made it count.
        let wanted = self
            .zookeeper
            .record
            .as_ref()
            .map_or(0, |(record, _)| record.voters.k_floor as usize);
        let lost_to_faults = self.data.iter().any(|data| data.gone_by_fault);
        let wanted = if lost_to_faults { 1 } else { wanted + 1 };
        let acknowledged = self.history.acknowledged.iter().copied();
        let mut held = acknowledged.filter(|id| self.data[data].has.contains(*id));
        let lonely = held.find(|id| {
            let copies = self
                .data
                .iter()
                .filter(|data| !data.gone && data.has.contains(*id));
            copies.count() < wanted
        });
        if let Some(id) = lonely {
            self.wrong(|| {
                format!("I4: data {data} was set aside, and {id} is on fewer than {wanted} others")
            });
        }
    }

    /// The record is about to be replaced.
    pub fn record_changes(&mut self, record: &Rc<ClusterRecord>) {
        if self.history.deleted && !record.deleting {
            self.wrong(|| "a deletion is taken back".to_owned());
        }
        self.history.deleted |= record.deleting;
        self.check_paused(record);
        if self.trace.is_some() {
            let text = format!(
                "record: epoch {} {} published {:?} voters {:?} k={}",
                record.epoch,
                match &record.mastership {
                    Mastership::Unborn => "unborn".to_owned(),
                    Mastership::Electing => "electing".to_owned(),
                    Mastership::Elected(e) => format!(
                        "elected member {} opened {} for {}",
                        e.member, e.opened, e.history
                    ),
                },
                (record.published.master, &record.published.slaves),
                record.voters.members,
                record.voters.k_floor,
            );
            self.write_down(text);
        }
        self.follow_durability(record);
        let known = self.history.elected.map(|(epoch, _)| epoch);
        if let Some(elected) = record.elected()
            && known != Some(record.epoch)
        {
            self.is_elected(record.epoch, elected);
        }
        if self.nothing_may_be_noticed() && record.epoch > Epoch(1) {
            self.wrong(|| {
                "I5: a failover, though nothing has failed but scheduler, Mesos and ZooKeeper"
                    .to_owned()
            });
        }
    }

    /// For a cluster that is paused nothing is decided: what is stored of it is what was seen.
    fn check_paused(&mut self, next: &ClusterRecord) {
        let Some((before, _)) = self.zookeeper.record.clone() else {
            return;
        };
        let is_paused = |record: &ClusterRecord| record.paused_since.is_some() && !record.deleting;
        let tasks = |record: &ClusterRecord| {
            let tasks = record.members.values().filter_map(|it| it.task.clone());
            tasks.map(|task| task.task_id).collect::<Vec<_>>()
        };
        let kept = tasks(&before);
        let decided = before.epoch != next.epoch
            || before.mastership != next.mastership
            || before.voters != next.voters
            || !before.members.keys().eq(next.members.keys())
            || tasks(next).iter().any(|task| !kept.contains(task));
        if is_paused(&before) && is_paused(next) && decided {
            self.wrong(|| "something is decided for a cluster that is paused".to_owned());
        }
    }

    /// A write of a client has failed.
    pub fn client_failed(&mut self, how: &str) {
        let born = self
            .clients
            .0
            .iter()
            .any(|client| client.last_success.is_some());
        if self.nothing_may_be_noticed() && born {
            self.wrong(|| {
                format!("I5: {how}, though nothing has failed but scheduler, Mesos and ZooKeeper")
            });
        }
    }

    /// I3: what discovery names serves, or has just died.
    pub fn look_at_discovery(&mut self) {
        self.look_for_replaced_masters();
        let serves = self.discovered_master().is_none_or(|address| {
            self.listening.get(&address).is_some_and(|process| {
                let it = &self.processes[*process];
                !it.read_only && it.admitted
            })
        });
        // What waits for a time waits for as much longer as a clock has gone back.
        let detection = match self.clocks_jumped {
            true => DETECTION + LARGEST_JUMP,
            false => DETECTION,
        };
        if serves || !self.scheduler_sees_all() {
            self.discovery_wrong_since = None;
        } else if self.now > *self.discovery_wrong_since.get_or_insert(self.now) + detection {
            self.wrong(|| {
                "I3: discovery has named a master for long that does not serve".to_owned()
            });
        }
        self.after(LOOK_EVERY, World::look_at_discovery);
    }

    /// Whether nothing keeps the scheduler from seeing and acting, and enough others are there to elect another master.
    fn scheduler_sees_all(&self) -> bool {
        let leads = self.leader().is_some_and(|leader| {
            let it = &self.schedulers[leader];
            it.session.connected && !it.paused
        });
        let Some((record, _)) = &self.zookeeper.record else {
            return false;
        };
        if record.paused_since.is_some() {
            return false;
        }
        let master = self.discovered_master();
        let mut alive = self.executors.iter().filter(|executor| executor.alive);
        // With the data that they vote with: what was made anew in between does not elect.
        let others = alive.clone().filter(|it| {
            let votes = it.process.is_some_and(|process| {
                let data = self.data[self.processes[process].data].id;
                record.voters.counts(it.member, data)
            });
            let is_voter = record.voters.members.contains_key(&it.member);
            is_voter && votes && Some((it.host, it.port)) != master
        });
        leads
            && others.count() >= record.voters.quorum()
            && alive.all(|it| it.session.connected && !it.paused)
    }

    // === the end ===

    /// Whether what is left of the voters can elect a master and acknowledge its marker, so that progress may be demanded.
    ///
    /// Two things are beyond Cotton: too few voters have kept the data that they vote with; or so many of them hold
    /// something that the best of them lacks that there are not enough left to acknowledge, and nothing may be set aside
    /// before that (`docs/design/simulation.md`, "What is not demanded").
    pub fn can_recover(&self) -> bool {
        self.hopeless().is_none()
    }

    /// Why progress cannot be demanded.
    pub fn hopeless(&self) -> Option<&'static str> {
        if self.history.deleted {
            return None;
        }
        let (record, _) = self.zookeeper.record.as_ref()?;
        let mut members = record.members.values();
        if record.mastership == Mastership::Unborn && members.any(|it| self.has_lost_its_slot(it)) {
            return Some("a slot was lost before the cluster was born");
        }
        let voters = &record.voters;
        let alive = self.executors.iter().filter(|executor| executor.alive);
        let mut left: Vec<&Data> = Vec::new();
        for executor in alive {
            let directories = &executor.sandbox.borrow().directories;
            let data = directories.iter().map(|data| &self.data[*data]);
            let votes = |data: &&Data| !data.gone && voters.counts(executor.member, data.id);
            let is_voter = voters.members.contains_key(&executor.member);
            left.extend(data.rev().find(|data| is_voter && votes(data)));
        }
        if record.rule() == Durability::Async {
            return left.is_empty().then_some("no voter has kept its data");
        }
        if left.len() < voters.quorum() {
            let master = self.history.opened.last();
            let has_master =
                |data: &&Data| master.is_some_and(|(_, m)| self.data[*m].id == data.id);
            return Some(match left.iter().any(has_master) {
                true => "too few voters have kept their data, the last master among them",
                false => "too few voters have kept their data, and the last master has not",
            });
        }
        let held = |data: &Data| self.held_by(data);
        let better = |a: &&&Data, b: &&&Data| {
            let (a, b) = (held(a), held(b));
            let marker = |position: &Position| position.highest_marker(record.uuid);
            Position::more_complete(&a, &b, record.uuid).unwrap_or(marker(&a).cmp(&marker(&b)))
        };
        let best = left.iter().max_by(better)?;
        let agrees = |data: &&&Data| {
            let mut all = data.binlog.iter().chain(&data.relay);
            all.all(|id| best.has.contains(*id) || self.is_marker(*id))
        };
        let agree = left.iter().filter(agrees).count();
        (agree <= voters.k_floor as usize).then_some("too many voters hold what the best one lacks")
    }

    /// Markers that were never acknowledged stay where they are.
    fn is_marker(&self, id: TransactionId) -> bool {
        matches!(self.history.transactions[id].kind, Kind::Marker(_))
    }

    /// What is still missing to a healthy cluster, if anything.
    pub fn unfinished(&self, calm_since: u64) -> Option<String> {
        if self.setup.deleted_at.is_some() && !self.is_back() {
            let removed = self.history.deleted && self.zookeeper.record.is_none();
            return match removed {
                false => Some("the cluster is not removed".to_owned()),
                true if self.is_kept() => Some("what is kept is not destroyed".to_owned()),
                true => None,
            };
        }
        let Some((record, _)) = &self.zookeeper.record else {
            return Some("there is no record".to_owned());
        };
        if record.switchover.as_ref().is_some_and(|s| s.is_pending()) {
            return Some("a switchover has no outcome".to_owned());
        }
        let Some(elected) = record.elected().filter(|elected| elected.opened) else {
            let awaited = self.leader().map(|leader| {
                let clusters = &self.schedulers[leader].state.clusters;
                clusters
                    .values()
                    .map(|cluster| cluster.awaited.reason.clone())
                    .collect::<String>()
            });
            return Some(format!(
                "no master is open: {}",
                awaited.unwrap_or_default()
            ));
        };
        if record.published.master != Some(elected.member) {
            return Some("the master is not in discovery".to_owned());
        }
        if record.rule() != record.spec.durability {
            return Some("another durability is not in force".to_owned());
        }
        let missing = record.members.keys().find(|member| {
            let serves = **member == elected.member || record.published.slaves.contains(member);
            !serves && !self.has_lost_its_slot(&record.members[member])
        });
        if let Some(member) = missing {
            return Some(format!("member {member} is not in discovery"));
        }
        let succeeded =
            |client: &super::clients::Client| client.last_success.is_some_and(|at| at > calm_since);
        if !self.clients.0.iter().all(succeeded) {
            return Some("a client has not written since".to_owned());
        }
        None
    }

    /// After all has come to rest: the master has what it owes, and everybody has what the master has.
    pub fn check_the_end(&mut self) {
        self.check_explained();
        let Some((record, _)) = self.zookeeper.record.clone() else {
            return;
        };
        let Some(elected) = record.elected() else {
            return;
        };
        let Some(master) = self.data.iter().position(|data| data.id == elected.data) else {
            return;
        };
        if self.promises_durability()
            && let Some(id) = self.missing_on(master)
        {
            return self
                .wrong(|| format!("I1: {id} was acknowledged or read, and is lost in the end"));
        }
        for executor in 0..self.executors.len() {
            let it = &self.executors[executor];
            let serves = it.alive && record.published.slaves.contains(&it.member);
            let Some(process) = it.process.filter(|_| serves) else {
                continue;
            };
            let data = &self.data[self.processes[process].data];
            let extra = data
                .binlog
                .iter()
                .copied()
                .find(|id| !self.data[master].has.contains(*id) && !self.is_marker(*id));
            if let Some(id) = extra {
                let member = it.member;
                return self.wrong(|| {
                    format!("I2: member {member} serves {id}, which the master does not have")
                });
            }
        }
    }
}
