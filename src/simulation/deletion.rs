//! The end of a cluster: asked for by an operator, stored, never taken back, and complete when nothing of it runs.

use super::{
    scheduler::cluster_name,
    world::{MILLISECOND, SECOND, World, note},
    zookeeper::Transacted,
};
use crate::{
    cluster::id::TaskId,
    scheduler::event::{Event, RequestToken},
    secret::Secret,
};

impl World {
    /// An operator asks for the end of the cluster, until that is stored.
    pub fn deletion_is_asked_for(&mut self) {
        if self.history.deleted {
            return;
        }
        if let Some(leader) = self.leader() {
            note!(self, "the cluster's end is asked for");
            let delete = Event::Delete {
                token: RequestToken(2),
                name: cluster_name(),
                password: Some(Secret::new("p")),
            };
            self.scheduler_hears(leader, delete);
        }
        self.after(2 * SECOND, World::deletion_is_asked_for);
    }

    /// A scheduler asks for the end of a task. What runs and belongs to a cluster that is not deleted is not ended.
    pub fn check_kill(&mut self, task: &TaskId) {
        let belongs = self
            .zookeeper
            .record
            .as_ref()
            .is_some_and(|(record, _)| !record.deleting && record.member_of(task).is_some());
        if belongs {
            self.wrong(|| format!("I4: {task} is killed, and its cluster is not deleted"));
        }
    }

    /// The record goes, last of all.
    pub fn remove(&mut self, scheduler: usize, expected: i32) {
        let delay = self.network();
        self.after(delay, move |world| {
            let result = if world.schedulers[scheduler].session.connected {
                world.remove_record(scheduler, expected)
            } else {
                Transacted::Uncertain
            };
            let lost = world.setup.answers_get_lost && world.chance.percent(5);
            let result = if lost { Transacted::Uncertain } else { result };
            let delay = world.network();
            world.after(delay, move |world| {
                world.on_scheduler(scheduler, move |world| match result {
                    Transacted::Stored(_) => {
                        let cluster = cluster_name();
                        world.scheduler_hears(
                            scheduler,
                            Event::Removed {
                                cluster,
                                retained: None,
                            },
                        );
                    }
                    Transacted::Deposed | Transacted::Conflict => {
                        world.scheduler_ends(scheduler, "the record was changed");
                    }
                    Transacted::Uncertain => world.after(250 * MILLISECOND, move |world| {
                        world.on_scheduler(scheduler, move |world| {
                            world.remove(scheduler, expected);
                        });
                    }),
                });
            });
        });
    }

    fn remove_record(&mut self, scheduler: usize, expected: i32) -> Transacted {
        if self.schedulers[scheduler].fence != self.zookeeper.fence {
            return Transacted::Deposed;
        }
        match &self.zookeeper.record {
            // An answer got lost.
            None => return Transacted::Stored(0),
            Some((_, version)) if *version != expected => return Transacted::Conflict,
            Some((record, _)) if !record.deleting => {
                self.wrong(|| "I4: a cluster is removed that nobody has deleted".to_owned());
            }
            Some(_) => {}
        }
        if let Some(executor) = self.executors.iter().position(|it| it.alive) {
            self.wrong(|| format!("I4: the record is removed, and executor {executor} runs"));
        }
        note!(self, "the record is removed");
        self.zookeeper.record = None;
        self.zookeeper.goal = None;
        Transacted::Stored(0)
    }
}
