//! Scenes in which it matters whose reports elect whom.

use super::{Cast, SECOND, World, ZOOKEEPER, elected_after};
use crate::simulation::world::MILLISECOND;

impl World {
    /// The last writes are on the master and one voter alone. That one has lost its session when the master ends, and the
    /// other voter is all that is in sight for a moment.
    pub(super) fn lone_witness(&mut self, cast: Cast) -> u64 {
        let (master, witness, other) = (cast.master, cast.voters[0], cast.voters[1]);
        self.part(self.host_of(witness), ZOOKEEPER);
        let (a, c) = (self.host_of(master), self.host_of(other));
        // Not for so long that the other one connects anew.
        self.within(5 * SECOND, 7 * SECOND, move |world| world.part(a, c));
        self.within(7 * SECOND + 100, 9 * SECOND, move |world| {
            match world.chance.below(3) {
                0 => world.kill_and_cut_off(master),
                _ => {
                    if let Some(process) = world.executors[master].process {
                        world.kill_process(process);
                    }
                }
            }
        });
        self.chance.between(12 * SECOND, 16 * SECOND)
    }

    /// A master that only clients and ZooKeeper can reach collects commits that nobody acknowledges. It is replaced; its
    /// successor writes a little and ends, and then it is back.
    pub(super) fn long_tail(&mut self, cast: Cast) -> u64 {
        let master = cast.master;
        let a = self.host_of(master);
        for voter in &cast.voters {
            self.part(a, self.host_of(*voter));
        }
        self.within(300 * MILLISECOND, 2500 * MILLISECOND, move |world| {
            world.cut_off(a, &[]);
        });
        let epoch = cast.epoch;
        let opened = move |record: &crate::cluster::record::ClusterRecord| {
            record.epoch > epoch && record.elected().is_some_and(|elected| elected.opened)
        };
        self.when(14 * SECOND, opened, move |world| {
            world.within(0, 60 * MILLISECOND, move |world| {
                let Some(successor) = world.elected_executor().filter(|it| *it != master) else {
                    return;
                };
                if let Some(process) = world.executors[successor].process {
                    world.kill_process(process);
                }
                world.within(25 * MILLISECOND, 70 * MILLISECOND, move |world| {
                    world.mend_network();
                    world.cut_off(world.host_of(successor), &[]);
                });
            });
        });
        self.chance.between(17 * SECOND, 22 * SECOND)
    }

    /// A master out of touch with ZooKeeper is replaced. A voter that has promised that is launched again, and reads first
    /// what was before. `late`: it had reported before its promise was on the disk.
    pub(super) fn old_goal(&mut self, cast: Cast, late: bool) -> u64 {
        let former = self.zookeeper.goal.clone();
        self.part(self.host_of(cast.master), ZOOKEEPER);
        let hosts: Vec<usize> = cast.voters.iter().map(|it| self.host_of(*it)).collect();
        if late {
            self.within(4 * SECOND, 4100 * MILLISECOND, move |world| {
                for host in hosts {
                    world.disk_stalls_until[host] = world.now + 3 * SECOND;
                }
            });
        }
        let voters = cast.voters;
        self.when(10 * SECOND, elected_after(cast.epoch), move |world| {
            world.within(0, 200 * MILLISECOND, move |world| {
                let elected = world.elected_executor();
                let other = voters.into_iter().find(|it| Some(*it) != elected);
                let (Some(other), Some(goal)) = (other, former) else {
                    return;
                };
                let host = world.host_of(other);
                let until = world.now + world.chance.between(5 * SECOND, 9 * SECOND);
                world.zookeeper.lagging.insert(host, (goal, until));
                world.container_ends(other, "the container has ended");
                world.disk_stalls_until[host] = world.now;
            });
        });
        self.chance.between(15 * SECOND, 18 * SECOND)
    }

    /// Some voters have received much that they have not applied; the others nothing of it. The master ends, and soon
    /// after it the one that is elected.
    pub(super) fn backlog(&mut self, cast: Cast) -> u64 {
        let master = cast.master;
        let a = self.host_of(master);
        for voter in &cast.voters[2..] {
            self.part(a, self.host_of(*voter));
        }
        self.within(200 * MILLISECOND, 1500 * MILLISECOND, move |world| {
            world.kill_and_cut_off(master);
        });
        self.when(10 * SECOND, elected_after(cast.epoch), move |world| {
            world.within(0, 500 * MILLISECOND, move |world| {
                if let Some(successor) = world.elected_executor() {
                    world.kill_and_cut_off(successor);
                }
            });
        });
        self.chance.between(12 * SECOND, 18 * SECOND)
    }

    /// A former master that has a tail is back while its successor, whom nobody hears, waits for its marker's acknowledgement.
    pub(super) fn quarantine(&mut self, cast: Cast) -> u64 {
        let (master, heir, other) = (cast.master, cast.voters[0], cast.voters[1]);
        let (a, b, c) = (
            self.host_of(master),
            self.host_of(heir),
            self.host_of(other),
        );
        self.part(a, c);
        self.within(200 * MILLISECOND, SECOND, move |world| {
            world.part(a, b);
            world.part(b, c);
            world.within(20 * MILLISECOND, 500 * MILLISECOND, move |world| {
                if let Some(process) = world.executors[master].process {
                    world.kill_process(process);
                }
            });
        });
        self.chance.between(6 * SECOND, 10 * SECOND)
    }

    /// The last writes are on the master and one voter. That one loses its data, and the master ends before it has them
    /// again.
    pub(super) fn data_lost(&mut self, cast: Cast) -> u64 {
        let (master, loses, other) = (cast.master, cast.voters[0], cast.voters[1]);
        let (a, b, c) = (
            self.host_of(master),
            self.host_of(loses),
            self.host_of(other),
        );
        self.part(a, c);
        self.within(300 * MILLISECOND, SECOND, move |world| {
            world.part(a, b);
            world.container_ends(loses, "the container has ended");
            world.within(2 * SECOND, 6 * SECOND, move |world| {
                world.kill_and_cut_off(master);
            });
        });
        self.chance.between(12 * SECOND, 16 * SECOND)
    }
}
