//! Scenes of a switchover with something that fails in the middle of it.

use super::{CLIENT, Cast, MILLISECOND, SECOND, World, ZOOKEEPER, elected_after};

impl World {
    /// A switchover is asked for, and most times one or two things fail within the time that it takes. Often clients do not
    /// hear of it, and write on where the master was.
    pub(super) fn switchover(&mut self, cast: Cast) -> u64 {
        let target = cast.voters[0];
        if self.chance.percent(60) {
            self.part(CLIENT, ZOOKEEPER);
        }
        let to = self.executors[target].member;
        let to = self.chance.percent(80).then_some(to);
        self.ask_for_switchover(to);
        for _ in 0..self.chance.below(3) {
            let cast = cast.clone();
            self.within(0, 80 * MILLISECOND, move |world| {
                world.fails_meanwhile(cast)
            });
        }
        self.chance.between(5 * SECOND, 12 * SECOND)
    }

    /// The master reads of a switchover and loses its touch with ZooKeeper: it goes on, is replaced, and back at once. Clients
    /// do not hear of that.
    pub(super) fn switchover_replaced(&mut self, cast: Cast) -> u64 {
        let (host, to) = (
            self.host_of(cast.master),
            self.executors[cast.voters[0]].member,
        );
        self.part(CLIENT, ZOOKEEPER);
        self.ask_for_switchover(Some(to));
        self.when(
            SECOND,
            |record| record.handover().is_some(),
            move |world| {
                world.within(2 * MILLISECOND, 5 * MILLISECOND, move |world| {
                    world.part(host, ZOOKEEPER);
                });
            },
        );
        self.when(9 * SECOND, elected_after(cast.epoch), move |world| {
            world.within(0, 100 * MILLISECOND, |world| {
                world.mend();
                world.part(CLIENT, ZOOKEEPER);
            });
        });
        self.chance.between(10 * SECOND, 14 * SECOND)
    }

    fn fails_meanwhile(&mut self, cast: Cast) {
        let (master, target) = (cast.master, cast.voters[0]);
        let other = *cast.voters.last().unwrap_or(&target);
        let (a, b, c) = (
            self.host_of(master),
            self.host_of(target),
            self.host_of(other),
        );
        match self.chance.below(12) {
            // It goes on receiving, and hears of no other epoch.
            0..=2 => self.part(c, ZOOKEEPER),
            3 => self.part(a, ZOOKEEPER),
            4 => self.part(a, b),
            5 => self.kill_and_cut_off(target),
            6 => {
                if let Some(process) = self.executors[target].process {
                    self.hang(process, true);
                }
            }
            7 => {
                if let Some(process) = self.executors[master].process {
                    self.kill_process(process);
                }
            }
            8 => self.pause_executor(master, true),
            9 => self.pause_executor(target, true),
            10 => {
                if let Some(leader) = self.leader() {
                    self.scheduler_ends(leader, "it is killed");
                }
            }
            _ => {
                if let Some(leader) = self.leader() {
                    self.pause_scheduler(leader, true);
                    self.within(SECOND, 4 * SECOND, move |world| {
                        world.pause_scheduler(leader, false);
                    });
                }
            }
        }
    }
}
