//! A deleted cluster that its owner wants back: asked for until it is there, or until there is nothing left to bring back.

use std::rc::Rc;

use super::{
    scheduler::cluster_name,
    world::{MILLISECOND, SECOND, World, note},
    zookeeper::Transacted,
};
use crate::{
    cluster::record::ClusterRecord,
    scheduler::{
        event::{Event, RequestToken, UndeleteRequest, Version},
        undelete::Undeletion,
    },
    secret::Secret,
};

impl World {
    /// Whether the cluster was brought back.
    pub fn is_back(&self) -> bool {
        self.history.back_since.is_some()
    }

    /// The owner asks for the deleted cluster, again and again.
    pub fn undeletion_is_asked_for(&mut self) {
        let removed = self.history.deleted && self.zookeeper.record.is_none();
        let kept = self.zookeeper.retained.as_ref();
        let over = removed && kept.is_none_or(|(kept, _)| kept.destroying);
        if self.is_back() || over {
            return;
        }
        if let Some(leader) = self.leader().filter(|_| self.history.deleted) {
            let request = UndeleteRequest {
                token: RequestToken(5),
                name: cluster_name(),
                target: None,
                incarnation: None,
                password: Some(Secret::new("p")),
            };
            self.scheduler_hears(leader, Event::Undelete(Box::new(request)));
        }
        self.after(SECOND, World::undeletion_is_asked_for);
    }

    /// What `storing::undelete` does.
    pub fn undelete(&mut self, scheduler: usize, undeletion: Undeletion) {
        let Version(kept) = undeletion.kept;
        self.bring_back(scheduler, Rc::new(undeletion.record), kept);
    }

    fn bring_back(&mut self, scheduler: usize, record: Rc<ClusterRecord>, kept: i32) {
        let delay = self.network();
        self.after(delay, move |world| {
            let result = if world.schedulers[scheduler].session.connected {
                world.put_back(scheduler, &record, kept)
            } else {
                Transacted::Uncertain
            };
            let lost = world.setup.answers_get_lost && world.chance.percent(5);
            let result = if lost { Transacted::Uncertain } else { result };
            let delay = world.network();
            world.after(delay, move |world| {
                world.on_scheduler(scheduler, move |world| match result {
                    Transacted::Stored(version) => {
                        let (cluster, version) = (cluster_name(), Version(version));
                        world.scheduler_hears(scheduler, Event::Stored { cluster, version });
                    }
                    Transacted::Deposed => {
                        world.scheduler_ends(scheduler, "another one has taken over");
                    }
                    Transacted::Conflict | Transacted::Uncertain => {
                        world.read_before_bringing_back(scheduler, record, kept, result);
                    }
                });
            });
        });
    }

    fn read_before_bringing_back(
        &mut self,
        scheduler: usize,
        record: Rc<ClusterRecord>,
        kept: i32,
        result: Transacted,
    ) {
        self.after(250 * MILLISECOND, move |world| {
            world.on_scheduler(scheduler, move |world| {
                let connected = world.schedulers[scheduler].session.connected;
                match world.zookeeper.record.clone() {
                    Some((stored, version)) if connected && stored == record => {
                        let (cluster, version) = (cluster_name(), Version(version));
                        world.scheduler_hears(scheduler, Event::Stored { cluster, version });
                    }
                    _ if connected && result == Transacted::Conflict => {
                        world.scheduler_ends(scheduler, "what is stored was changed");
                    }
                    _ => world.bring_back(scheduler, record, kept),
                }
            });
        });
    }

    /// One transaction: the record is there again, and what was kept is not.
    fn put_back(
        &mut self,
        scheduler: usize,
        record: &Rc<ClusterRecord>,
        expected: i32,
    ) -> Transacted {
        if self.schedulers[scheduler].fence != self.zookeeper.fence {
            return Transacted::Deposed;
        }
        let found = self.zookeeper.retained.clone();
        let Some((kept, _)) = found.filter(|(_, version)| *version == expected) else {
            return Transacted::Conflict;
        };
        if kept.destroying {
            self.wrong(|| "I4: a cluster comes back that is being destroyed".to_owned());
        }
        note!(self, "the deleted cluster is back");
        self.history.deleted = false;
        self.history.back_since = Some(self.now);
        self.zookeeper.retained = None;
        self.transact(scheduler, record, None)
    }
}
