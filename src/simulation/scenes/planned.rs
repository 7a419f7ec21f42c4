//! Scenes of what operators ask for, with something that fails after one of the records that are stored on the way.

use super::{
    super::{changes::changed, world::Moment},
    CLIENT, Cast, MESOS, MILLISECOND, SCHEDULER, SECOND, World, ZOOKEEPER,
};
use crate::{
    cluster::{change::ChangeRequest, id::MemberId},
    scheduler::event::Wish,
};

/// How long after it was asked for something may be stored.
const LATE: Moment = 60 * SECOND;

impl World {
    /// Members are restarted, mostly one, now and then by force.
    pub(super) fn restarted(&mut self, cast: Cast) -> u64 {
        let members = self.chance.one_of(&[1, 1, 1, 2]);
        for _ in 0..members {
            let member = self.any_member(&cast);
            let force = self.chance.percent(20);
            self.ask(Wish::Restart { member, force });
        }
        self.fails_on_the_way(&cast);
        self.chance.between(10 * SECOND, 20 * SECOND)
    }

    /// Another size, other settings or another package reach one member after the other.
    pub(super) fn changes(&mut self, cast: Cast) -> u64 {
        let number = self.chance.between(1, 3);
        let none = ChangeRequest::default();
        let request = match self.chance.below(6) {
            0 | 1 => ChangeRequest {
                mem: Some(format!("{}mb", 352 + number * 32)),
                ..none
            },
            2 => ChangeRequest {
                package: Some("next".to_owned()),
                ..none
            },
            3 => ChangeRequest {
                package: Some("default".to_owned()),
                ..none
            },
            _ => ChangeRequest {
                my_cnf: Some(format!("[mysqld]\nmax_connections={number}")),
                ..none
            },
        };
        self.ask(changed(request));
        self.fails_on_the_way(&cast);
        self.chance.between(20 * SECOND, 40 * SECOND)
    }

    /// The other durability is asked for, and often the first one again before or after that has come about.
    pub(super) fn durability_changed(&mut self, cast: Cast) -> u64 {
        self.ask_for_other_durability();
        self.fails_on_the_way(&cast);
        if self.chance.percent(60) {
            self.within(0, 10 * SECOND, Self::ask_for_other_durability);
        }
        self.chance.between(5 * SECOND, 20 * SECOND)
    }

    /// Another member comes in the place of one.
    pub(super) fn replaced(&mut self, cast: Cast) -> u64 {
        let member = self.any_member(&cast);
        self.ask(Wish::Replace { member });
        self.fails_on_the_way(&cast);
        self.chance.between(10 * SECOND, 25 * SECOND)
    }

    /// More members or fewer, down to one and up to what the agents have room for, and then as many as before.
    pub(super) fn scaled(&mut self, cast: Cast) -> u64 {
        let nodes = self.setup.nodes;
        let most = self.setup.agents as u32;
        let num_nodes = self.chance.one_of(&[1, nodes - 1, nodes + 1, most]);
        self.ask(Wish::Scale { num_nodes });
        self.fails_on_the_way(&cast);
        let back_after = self.chance.between(5 * SECOND, 15 * SECOND);
        self.after(back_after, move |world| {
            world.scale_back(num_nodes, world.now + LATE);
        });
        back_after + self.chance.between(5 * SECOND, 15 * SECOND)
    }

    /// Asks for as many members as there were, also if the other wish is stored late.
    fn scale_back(&mut self, from: u32, until: Moment) {
        let nodes = self.setup.nodes;
        let record = self.zookeeper.record.as_ref();
        if record.is_some_and(|(record, _)| record.spec.num_nodes == from) {
            self.ask(Wish::Scale { num_nodes: nodes });
        }
        if self.now < until {
            self.after(2 * SECOND, move |world| world.scale_back(from, until));
        }
    }

    /// A host is to be taken down, or its agent is drained at once; often a member is restarted, or changed, at the same time.
    pub(super) fn drained(&mut self, cast: Cast) -> u64 {
        let executor = self.anybody(&cast);
        let host = self.host_of(executor);
        match self.chance.percent(65) {
            true => self.plan_maintenance(host),
            false => self.drain(host),
        }
        let restarts = self.chance.percent(60);
        let member = self.any_member(&cast);
        self.within(0, 15 * SECOND, move |world| {
            if restarts {
                let force = false;
                world.ask(Wish::Restart { member, force });
            }
        });
        self.fails_on_the_way(&cast);
        self.chance.between(20 * SECOND, 45 * SECOND)
    }

    /// Automation is paused for a while, in which something fails.
    pub(super) fn paused(&mut self, cast: Cast) -> u64 {
        self.ask(Wish::Pause(true));
        for _ in 0..self.chance.between(1, 3) {
            let cast = cast.clone();
            self.within(SECOND, 10 * SECOND, move |world| {
                world.fails_somewhere(&cast)
            });
        }
        let lasts = self.chance.between(3 * SECOND, 15 * SECOND);
        self.after(lasts, move |world| world.resume(world.now + LATE));
        lasts + self.chance.between(5 * SECOND, 15 * SECOND)
    }

    /// Takes a pause back, also if it is stored late.
    fn resume(&mut self, until: Moment) {
        let record = self.zookeeper.record.as_ref();
        if record.is_some_and(|(record, _)| record.paused_since.is_some()) {
            self.ask(Wish::Pause(false));
        }
        if self.now < until {
            self.after(2 * SECOND, move |world| world.resume(until));
        }
    }

    /// The master as often as the others together.
    fn anybody(&mut self, cast: &Cast) -> usize {
        match self.chance.percent(50) {
            true => cast.master,
            false => self.chance.one_of(&cast.voters),
        }
    }

    fn any_member(&mut self, cast: &Cast) -> MemberId {
        let executor = self.anybody(cast);
        self.executors[executor].member
    }

    /// Once or twice something fails, each as soon as so many more records are stored.
    fn fails_on_the_way(&mut self, cast: &Cast) {
        let Some((_, now)) = self.zookeeper.record.clone() else {
            return;
        };
        for _ in 0..self.chance.between(1, 2) {
            let version = now + self.chance.between(1, 10) as i32;
            let delay = self.chance.one_of(&[0, 0, 30 * MILLISECOND]);
            let cast = cast.clone();
            self.when_stored(version, 20 * SECOND, move |world| {
                world.after(delay, move |world| {
                    if world.faults_go_on {
                        world.fails_somewhere(&cast);
                    }
                });
            });
        }
    }

    /// Waits for a version of the record to be stored, and does something then; if it comes in time.
    fn when_stored(
        &mut self,
        version: i32,
        within: Moment,
        then: impl FnOnce(&mut Self) + 'static,
    ) {
        let record = self.zookeeper.record.as_ref();
        if record.is_some_and(|(_, stored)| *stored >= version) {
            return then(self);
        }
        if let Some(left) = within
            .checked_sub(MILLISECOND)
            .filter(|_| self.faults_go_on)
        {
            self.after(MILLISECOND, move |world| {
                world.when_stored(version, left, then);
            });
        }
    }

    /// The scheduler ends, stands still or is cut off, most often; or ZooKeeper, Mesos, a member or its host does.
    fn fails_somewhere(&mut self, cast: &Cast) {
        let executor = self.anybody(cast);
        let host = self.host_of(executor);
        let lasts = self.chance.between(SECOND, 8 * SECOND);
        let again = move |world: &mut World, ways: &[(usize, usize)]| {
            let ways = ways.to_vec();
            world.block(&ways, true);
            world.after(lasts, move |world| world.block(&ways, false));
        };
        match self.chance.below(14) {
            0..=3 => {
                if let Some(leader) = self.leader() {
                    self.scheduler_ends(leader, "it is killed");
                }
            }
            4 => {
                if let Some(leader) = self.leader() {
                    self.pause_scheduler(leader, true);
                    self.after(lasts, move |world| world.pause_scheduler(leader, false));
                }
            }
            5 => again(self, &[(SCHEDULER, ZOOKEEPER), (ZOOKEEPER, SCHEDULER)]),
            6 => again(self, &[(SCHEDULER, MESOS), (MESOS, SCHEDULER)]),
            7 => {
                self.set_zookeeper(false);
                self.after(lasts, |world| world.set_zookeeper(true));
            }
            8 => self.master_fails_over(lasts),
            9 => {
                if let Some(process) = self.executors[executor].process {
                    self.kill_process(process);
                }
            }
            10 if self.setup.volumes && self.executors[executor].alive => {
                self.container_ends(executor, "the container has ended");
            }
            11 => {
                self.pause_executor(executor, true);
                self.after(lasts, move |world| world.pause_executor(executor, false));
            }
            12 if self.setup.volumes => {
                self.host_goes_down(host);
                self.after(lasts, move |world| world.host_comes_up(host));
            }
            _ => self.cut_off(host, &[CLIENT]),
        }
    }
}
