//! An operator who asks for more members, for fewer, and for others.

use super::world::World;
use crate::{cluster::id::MemberId, scheduler::event::Wish};

impl World {
    /// Something about the members is asked for now and then.
    pub fn membership_changes_begin(&mut self) {
        let Some(every) = self.setup.membership_every else {
            return;
        };
        let pause = self.chance.between(1, every * 2);
        self.after(pause, |world| {
            if world.faults_go_on {
                world.ask_for_members();
                world.membership_changes_begin();
            }
        });
    }

    fn ask_for_members(&mut self) {
        let most = u64::from(self.setup.nodes) + 1;
        let num_nodes = self.chance.between(1, most) as u32;
        let scales = self.chance.percent(50);
        let members: Vec<MemberId> = match &self.zookeeper.record {
            Some((record, _)) => record.members.keys().copied().collect(),
            None => return,
        };
        let member = members[self.chance.below(members.len() as u64) as usize];
        let wish = match scales {
            true => Wish::Scale { num_nodes },
            false => Wish::Replace { member },
        };
        self.ask(wish);
    }
}
