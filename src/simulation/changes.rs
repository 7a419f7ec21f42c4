//! An operator who restarts members, and wants other settings of them or another durability.

use super::{
    scheduler::cluster_name,
    world::{World, note},
};
use crate::{
    cluster::{
        change::{Change, ChangeRequest},
        id::MemberId,
        voters::Durability,
    },
    scheduler::event::{Ask, Event, RequestToken, Wish},
    secret::Secret,
};

/// Other settings, size, package or durability.
pub fn changed(request: ChangeRequest) -> Wish {
    Wish::Change(Change::check(request).unwrap())
}

impl World {
    /// A restart or other settings are asked for now and then.
    pub fn changes_begin(&mut self) {
        let Some(every) = self.setup.changes_every else {
            return;
        };
        let pause = self.chance.between(1, every * 2);
        self.after(pause, |world| {
            if world.faults_go_on {
                world.ask_for_change();
                world.changes_begin();
            }
        });
    }

    fn ask_for_change(&mut self) {
        let number = self.chance.between(1, 3);
        let changes = self.chance.percent(60);
        let force = self.chance.percent(20);
        let members: Vec<MemberId> = match &self.zookeeper.record {
            Some((record, _)) => record.members.keys().copied().collect(),
            None => return,
        };
        let member = members[self.chance.below(members.len() as u64) as usize];
        let wish = match changes {
            true => changed(ChangeRequest {
                my_cnf: Some(format!("[mysqld]\nmax_connections={number}")),
                force: force.then(|| "true".to_owned()),
                ..ChangeRequest::default()
            }),
            false => Wish::Restart { member, force },
        };
        self.ask(wish);
    }

    /// The other durability is asked for now and then.
    pub fn durability_changes_begin(&mut self) {
        let Some(every) = self.setup.durability_every else {
            return;
        };
        let pause = self.chance.between(1, every * 2);
        self.after(pause, |world| {
            if world.faults_go_on {
                world.ask_for_other_durability();
                world.durability_changes_begin();
            }
        });
    }

    /// Asks for `async` where `majority` was asked for, and the other way round.
    pub fn ask_for_other_durability(&mut self) {
        let record = self.zookeeper.record.as_ref();
        let Some(asked_for) = record.map(|(record, _)| record.spec.durability) else {
            return;
        };
        let other = match asked_for {
            Durability::Majority => Durability::Async,
            Durability::Async => Durability::Majority,
        };
        self.ask(changed(ChangeRequest {
            durability: Some(other.to_string()),
            ..ChangeRequest::default()
        }));
    }

    /// Somebody asks the scheduler for something, if there is one.
    pub fn ask(&mut self, wish: Wish) {
        let Some(leader) = self.leader() else { return };
        note!(self, "an operator asks: {wish:?}");
        let ask = Ask {
            token: RequestToken(3),
            name: cluster_name(),
            password: Some(Secret::new("p")),
            wish,
        };
        self.scheduler_hears(leader, Event::Ask(Box::new(ask)));
    }
}
