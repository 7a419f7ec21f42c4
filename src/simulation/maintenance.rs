//! An operator who takes hosts down for maintenance, and asks before; and one who drains agents, and does not ask.

use std::time::Duration;

use super::{
    mesos::Planned,
    scheduler::cluster_name,
    world::{MILLISECOND, SECOND, World, note},
};
use crate::{
    cluster::{
        id::MemberId,
        record::{ClusterRecord, MemberRecord, TaskRecord},
        voters::Durability,
    },
    executor::event::Event as ExecutorEvent,
    scheduler::{event::Event, event::Version, maintenance::InverseOffer},
};

/// What Mesos grants tasks whose agent is drained.
const GRACE: Duration = Duration::from_secs(15);

/// A maintenance longer than this makes members move.
const HOURS: u64 = 3 * 3600 * SECOND;

impl World {
    /// Hosts are taken down now and then.
    pub fn maintenance_begins(&mut self) {
        let Some(every) = self.setup.maintenance_every else {
            return;
        };
        let pause = self.chance.between(1, every * 2);
        self.after(pause, |world| {
            if world.faults_go_on {
                let drains = world.chance.percent(25);
                let host = world.chance.below(world.setup.agents as u64) as usize;
                match drains {
                    true => world.drain(host),
                    false => world.plan_maintenance(host),
                }
                world.maintenance_begins();
            }
        });
    }

    /// The plans are given up.
    pub fn maintenance_ends(&mut self) {
        for agent in &mut self.mesos.agents {
            agent.planned = None;
        }
    }

    pub fn plan_maintenance(&mut self, host: usize) {
        let agent = &self.mesos.agents[host];
        if !agent.up || agent.planned.is_some() {
            return;
        }
        let lasts = self.chance.one_of(&[10 * SECOND, 60 * SECOND, HOURS]);
        let planned = Planned {
            number: self.events,
            from: self.now + self.chance.between(SECOND, 40 * SECOND),
            lasts,
            agreed: false,
        };
        note!(self, "h{host} is to go down: {planned:?}");
        self.mesos.agents[host].planned = Some(planned);
        self.rescind(host);
        self.ask_back(host, planned.number);
        // An operator does not wait for ever for an agreement.
        self.after(90 * SECOND, move |world| {
            let stands = &mut world.mesos.agents[host].planned;
            stands.take_if(|it| it.number == planned.number);
        });
    }

    /// Asks for a host, again and again as long as the plan stands.
    fn ask_back(&mut self, host: usize, number: u64) {
        let planned = self.mesos.agents[host].planned;
        let Some(planned) = planned.filter(|it| it.number == number) else {
            return;
        };
        if let Some(scheduler) = self
            .gets_to_scheduler()
            .filter(|_| self.agent_answers(host))
        {
            let id = format!("i{host}-{}", self.events);
            self.mesos.inverse.insert(id.clone(), host);
            let offer = InverseOffer {
                id,
                agent_id: self.mesos.agents[host].id(host),
                from: self.timestamp(planned.from as i64 - self.now as i64),
                lasts: Some(Duration::from_micros(planned.lasts)),
            };
            self.scheduler_hears(scheduler, Event::Inverse(offer));
        }
        let pause = self.chance.between(2 * SECOND, 15 * SECOND);
        self.after(pause, move |world| world.ask_back(host, number));
    }

    /// A scheduler answers.
    pub fn answer_inverse(&mut self, scheduler: usize, offers: &[String], agrees: bool) {
        for id in offers {
            let host = self.mesos.inverse.remove(id);
            let Some(host) = host.filter(|_| agrees && self.gets_to_mesos(scheduler)) else {
                continue;
            };
            let planned = &mut self.mesos.agents[host].planned;
            let Some(planned) = planned.as_mut().filter(|it| !it.agreed) else {
                continue;
            };
            planned.agreed = true;
            let planned = *planned;
            note!(self, "scheduler {scheduler} gives h{host} away");
            self.check_given_away(scheduler, host);
            let delay = planned.from.saturating_sub(self.now) + MILLISECOND;
            self.after(delay, move |world| {
                world.machine_is_maintained(host, planned)
            });
        }
    }

    fn machine_is_maintained(&mut self, host: usize, planned: Planned) {
        let stands = self.mesos.agents[host].planned;
        let stands = stands.is_some_and(|it| it.number == planned.number);
        if !stands || !self.faults_go_on {
            return;
        }
        note!(self, "machine h{host} goes down for maintenance");
        self.machine_goes_down(host);
        self.mesos.agents[host].planned = None;
        // Longer than that nobody looks.
        let lasts = planned.lasts.min(60 * SECOND);
        self.after(lasts, move |world| world.host_comes_up(host));
    }

    /// All tasks of an agent are killed, without a warning.
    pub fn drain(&mut self, host: usize) {
        if !self.setup.volumes {
            return;
        }
        note!(self, "h{host} is drained");
        for executor in 0..self.executors.len() {
            let it = &self.executors[executor];
            if it.alive && it.host == host {
                let (grace, may_hold) = (GRACE, true);
                self.tell(executor, ExecutorEvent::Kill { grace, may_hold });
            }
        }
    }

    /// I1, I3: nobody gives a host away on which the cluster depends. Whoever has taken over meanwhile knows better.
    fn check_given_away(&mut self, scheduler: usize, host: usize) {
        let Some((record, version)) = self.zookeeper.record.clone() else {
            return;
        };
        let known = self.schedulers[scheduler]
            .state
            .clusters
            .get(&cluster_name());
        if known.is_none_or(|known| known.version != Some(Version(version))) {
            return;
        }
        // An agent under another id than before is known to be the same by the slots that it offers, and not before.
        let id = self.mesos.agents[host].id(host);
        let there = |member: &MemberRecord| {
            member.task.is_some() && known.is_some_and(|known| known.observed.is_on(member, &id))
        };
        if !record.members.values().any(there) {
            return;
        }
        let host_of = |member| {
            let task = record.task(member)?;
            task.host.trim_start_matches('h').parse::<usize>().ok()
        };
        let Some(elected) = record.elected() else {
            return self.wrong(|| format!("h{host} is given away while there is no master"));
        };
        let master = record.members.get(&elected.member);
        if master.is_some_and(there) {
            return self.wrong(|| format!("h{host} is given away with the master on it"));
        }
        let stays = |other: usize| {
            let planned = self.mesos.agents[other].planned;
            let (Some(own), Some(its)) = (self.mesos.agents[host].planned, planned) else {
                return true;
            };
            let apart = own.from + own.lasts <= its.from || its.from + its.lasts <= own.from;
            !its.agreed || apart
        };
        let voters = record.voters.members.keys();
        let elsewhere = voters.filter(|voter| !is_restarted(&record, **voter));
        let elsewhere = elsewhere.filter_map(|voter| host_of(*voter));
        let elsewhere = elsewhere
            .filter(|other| *other != host && stays(*other))
            .count();
        let needed = needed(&record);
        if elsewhere < needed {
            self.wrong(|| {
                format!("h{host} is given away, and only {elsewhere} of the {needed} voters that are needed are elsewhere")
            });
        }
    }

    /// I1, I3: nobody's task is ended to be launched again while too few voters have one elsewhere, on hosts that are not about to
    /// be taken away by a word that the scheduler has given and knows of. Who has asked for it by force knows that.
    pub fn check_restart(&mut self, scheduler: usize, record: &ClusterRecord, member: MemberId) {
        let restart = record.members[&member].restart.as_ref();
        let asked = restart.is_some_and(|it| it.released && !it.force);
        let led = record.elected().is_some_and(|elected| elected.opened);
        if !asked || !led || record.deleting || record.members.len() == 1 {
            return;
        }
        let taken = |task: &TaskRecord| {
            let host: Option<usize> = task.host.trim_start_matches('h').parse().ok();
            let planned = host.and_then(|host| self.mesos.agents[host].planned);
            let known = self.schedulers[scheduler]
                .state
                .maintenance
                .window(&task.agent_id);
            let soon = self.now + 600 * SECOND;
            known.is_some() && planned.is_some_and(|it| it.agreed && it.from < soon)
        };
        let others = record.voters.members.keys();
        let others = others.filter(|it| **it != member && !is_restarted(record, **it));
        let tasks = others.filter_map(|it| record.task(*it));
        let (elsewhere, needed) = (tasks.filter(|it| !taken(it)).count(), needed(record));
        if elsewhere < needed {
            self.wrong(|| {
                format!("member {member} is restarted, and only {elsewhere} of the {needed} voters that are needed are elsewhere")
            });
        }
    }
}

/// How many voters it takes to go on writing and to elect.
fn needed(record: &ClusterRecord) -> usize {
    let voters = &record.voters;
    match record.rule() {
        Durability::Majority => voters.quorum().max(voters.k_floor as usize + 1),
        Durability::Async => 1,
    }
}

/// Whether a member's task is being ended to be launched again.
fn is_restarted(record: &ClusterRecord, member: MemberId) -> bool {
    let restart = record
        .members
        .get(&member)
        .and_then(|it| it.restart.as_ref());
    restart.is_some_and(|it| it.released)
}
