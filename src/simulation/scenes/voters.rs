//! Scenes in which it matters who acknowledges.

use super::{Cast, MILLISECOND, SECOND, World, ZOOKEEPER};

impl World {
    /// None of the voters hears the master; members that do not vote do.
    pub(super) fn heard_by_others(&mut self, cast: Cast) -> u64 {
        let master = cast.master;
        let a = self.host_of(master);
        for voter in &cast.voters {
            self.part(a, self.host_of(*voter));
        }
        self.within(300 * MILLISECOND, 2 * SECOND, move |world| {
            world.kill_and_cut_off(master);
        });
        self.chance.between(8 * SECOND, 12 * SECOND)
    }

    /// A voter out of touch with ZooKeeper goes on receiving and leaves the voters. About then the other one stops hearing
    /// the master, and then the master ends.
    pub(super) fn voter_leaves(&mut self, cast: Cast) -> u64 {
        let (master, stays, leaves) = (cast.master, cast.voters[0], cast.voters[1]);
        let (a, b) = (self.host_of(master), self.host_of(stays));
        let leaving = self.executors[leaves].member;
        self.part(self.host_of(leaves), ZOOKEEPER);
        let is_leaving = move |record: &crate::cluster::record::ClusterRecord| {
            record.change.is_some() || !record.voters.members.contains_key(&leaving)
        };
        let has_left = move |record: &crate::cluster::record::ClusterRecord| {
            !record.voters.members.contains_key(&leaving)
        };
        let end_soon = move |world: &mut World| {
            world.within(100 * MILLISECOND, 1500 * MILLISECOND, move |world| {
                world.kill_and_cut_off(master);
            });
        };
        match self.chance.below(3) {
            // The master does not hear of it.
            0 => {
                self.within(4500 * MILLISECOND, 7 * SECOND, move |world| {
                    world.part(a, ZOOKEEPER);
                });
                self.when(12 * SECOND, is_leaving, move |world| {
                    world.within(0, 20 * MILLISECOND, move |world| world.part(a, b));
                });
            }
            // The one that stays lacks what is acknowledged before.
            1 => {
                self.within(5 * SECOND, 8 * SECOND, move |world| world.part(a, b));
                self.when(12 * SECOND, has_left, end_soon);
            }
            // It lacks what is acknowledged after.
            _ => self.when(14 * SECOND, has_left, move |world| {
                world.part(a, b);
                end_soon(world);
            }),
        }
        self.chance.between(17 * SECOND, 20 * SECOND)
    }
}
