//! Scenes in which it matters how a master ends.

use std::time::Duration;

use super::{CLIENT, Cast, MILLISECOND, SECOND, World, elected_after};
use crate::executor::event::Event;

impl World {
    /// The task of a master whose commits wait is killed by an operator.
    pub(super) fn task_killed(&mut self, cast: Cast) -> u64 {
        let master = cast.master;
        let a = self.host_of(master);
        let one_way = self.chance.percent(30);
        for voter in cast.voters {
            let b = self.host_of(voter);
            if one_way {
                // What is sent arrives, and no acknowledgement comes back.
                self.block(&[(b, a)], true);
            } else {
                self.part(a, b);
            }
        }
        self.within(20 * MILLISECOND, 1500 * MILLISECOND, move |world| {
            let grace = Duration::from_secs(world.chance.between(5, 30));
            world.tell(
                master,
                Event::Kill {
                    grace,
                    may_hold: false,
                },
            );
        });
        self.chance.between(5 * SECOND, 9 * SECOND)
    }

    /// A master is cut off from everybody but its clients. `unattended`: its executor does not run either.
    pub(super) fn isolated(&mut self, cast: Cast, unattended: bool) -> u64 {
        let master = cast.master;
        self.cut_off(self.host_of(master), &[CLIENT]);
        if unattended {
            self.within(0, 2 * SECOND, move |world| {
                world.pause_executor(master, true);
            });
        }
        self.chance.between(24 * SECOND, 30 * SECOND)
    }

    /// A master is cut off from everybody but its clients, replaced, and back before its lease ends.
    pub(super) fn deposed_returns(&mut self, cast: Cast) -> u64 {
        self.cut_off(self.host_of(cast.master), &[CLIENT]);
        self.when(8 * SECOND, elected_after(cast.epoch), move |world| {
            world.within(0, 100 * MILLISECOND, World::mend);
        });
        self.chance.between(9 * SECOND, 12 * SECOND)
    }
}
