//! The end of a cluster: asked for by an operator, stored, never taken back, and complete when nothing of it runs.

use std::rc::Rc;

use uuid::Uuid;

use super::{
    scheduler::cluster_name,
    world::{MILLISECOND, SECOND, World, note},
    zookeeper::Transacted,
};
use crate::{
    cluster::{
        id::{MemberId, TaskId},
        record::ClusterRecord,
        retained::Retained,
    },
    scheduler::{
        event::{Event, RequestToken, Version},
        retained::Deed,
    },
    secret::Secret,
};

impl World {
    /// An operator asks for the end of the cluster, until that is stored.
    pub fn deletion_is_asked_for(&mut self) {
        if self.history.deleted || self.is_back() {
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
    pub fn check_kill(&mut self, scheduler: usize, task: &TaskId) {
        let Some((record, version)) = self.zookeeper.record.clone() else {
            return;
        };
        let Some(member) = record.member_of(task).filter(|_| !record.deleting) else {
            return;
        };
        // What has ended is not harmed by who was deposed and repeats what it had decided.
        let known = self.mesos.tasks.get(task);
        if known.is_some_and(|task| task.state.is_terminal()) {
            return;
        }
        let elected = record.elected().is_some_and(|it| it.member == member);
        let left = record.is_leaving(member) && !record.is_voter(member) && !elected;
        if !left && !may_be_restarted(&record, member, task) {
            self.wrong(|| format!("I4: {task} is killed, and its member counts"));
        }
        // What follows is decided again before the first kill only, by who knows what is stored.
        let known = self.schedulers[scheduler]
            .state
            .clusters
            .get(&cluster_name());
        let knows = known.is_some_and(|it| it.version == Some(Version(version)));
        if !knows || !self.history.killed.insert(task.clone()) {
            return;
        }
        match left {
            true => self.check_replaced(&record, member),
            false => self.check_restart(scheduler, &record, member),
        }
    }

    /// Nobody whose place another one is to take is ended before that one has a task.
    fn check_replaced(&mut self, record: &ClusterRecord, member: MemberId) {
        let leaving = record.members[&member].leaving.as_ref();
        let replacement = leaving.and_then(|leaving| leaving.replacement);
        if let Some(other) = replacement.filter(|it| record.task(*it).is_none()) {
            self.wrong(|| {
                format!("member {member} is ended, and member {other}, which is to take its place, is nowhere")
            });
        }
    }

    /// The record goes, last of all.
    pub fn remove(&mut self, scheduler: usize, expected: i32, kept: Option<Rc<Retained>>) {
        let delay = self.network();
        self.after(delay, move |world| {
            let result = if world.schedulers[scheduler].session.connected {
                world.remove_record(scheduler, expected, kept.clone())
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
                                // A new node's version.
                                retained: kept.map(|_| Version(0)),
                            },
                        );
                    }
                    Transacted::Deposed | Transacted::Conflict => {
                        world.scheduler_ends(scheduler, "the record was changed");
                    }
                    Transacted::Uncertain => world.after(250 * MILLISECOND, move |world| {
                        world.on_scheduler(scheduler, move |world| {
                            world.remove(scheduler, expected, kept);
                        });
                    }),
                });
            });
        });
    }

    fn remove_record(
        &mut self,
        scheduler: usize,
        expected: i32,
        kept: Option<Rc<Retained>>,
    ) -> Transacted {
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
        self.zookeeper.retained = kept.map(|kept| (kept, 0));
        self.history.removed_at = self.now;
        Transacted::Stored(0)
    }

    // === what is kept ===

    /// What is done with slots that nobody is to use: `execute::keep`.
    pub fn keep(&mut self, scheduler: usize, deed: Deed) {
        match deed {
            Deed::Store {
                retained, expected, ..
            } => {
                // It is there since the record was removed.
                let Some(expected) = expected else { return };
                let incarnation = retained.incarnation();
                self.store_kept(scheduler, incarnation, Some(Rc::new(*retained)), expected.0);
            }
            Deed::Forget {
                incarnation,
                expected,
            } => self.store_kept(scheduler, incarnation, None, expected.0),
            Deed::Release { offer, slots } => self.release_slots(scheduler, &offer, slots),
            Deed::Acknowledge { operation } => self.acknowledge_operation(scheduler, operation),
        }
    }

    /// Stores what is kept of the cluster, or that it is nothing, whatever it takes.
    fn store_kept(
        &mut self,
        scheduler: usize,
        incarnation: Uuid,
        kept: Option<Rc<Retained>>,
        expected: i32,
    ) {
        let delay = self.network();
        self.after(delay, move |world| {
            let result = if world.schedulers[scheduler].session.connected {
                world.replace_kept(scheduler, &kept, expected)
            } else {
                Transacted::Uncertain
            };
            let lost = world.setup.answers_get_lost && world.chance.percent(5);
            let result = if lost { Transacted::Uncertain } else { result };
            let delay = world.network();
            world.after(delay, move |world| {
                world.on_scheduler(scheduler, move |world| match result {
                    Transacted::Stored(version) => {
                        world.kept_is_stored(scheduler, incarnation, kept.is_some(), version)
                    }
                    Transacted::Deposed | Transacted::Conflict => {
                        world.scheduler_ends(scheduler, "what is kept was changed");
                    }
                    // Read before it is written again.
                    Transacted::Uncertain => world.after(250 * MILLISECOND, move |world| {
                        world.on_scheduler(scheduler, move |world| {
                            let found = world.zookeeper.retained.clone();
                            let connected = world.schedulers[scheduler].session.connected;
                            match found {
                                Some((found, version))
                                    if connected && Some(&found) == kept.as_ref() =>
                                {
                                    world.kept_is_stored(
                                        scheduler,
                                        incarnation,
                                        kept.is_some(),
                                        version,
                                    );
                                }
                                _ => world.store_kept(scheduler, incarnation, kept, expected),
                            }
                        });
                    }),
                });
            });
        });
    }

    fn kept_is_stored(&mut self, scheduler: usize, incarnation: Uuid, is_left: bool, version: i32) {
        let version = Version(version);
        let event = match is_left {
            true => Event::RetainedStored {
                incarnation,
                version,
            },
            false => Event::RetainedForgotten { incarnation },
        };
        self.scheduler_hears(scheduler, event);
    }

    fn replace_kept(
        &mut self,
        scheduler: usize,
        kept: &Option<Rc<Retained>>,
        expected: i32,
    ) -> Transacted {
        if self.schedulers[scheduler].fence != self.zookeeper.fence {
            return Transacted::Deposed;
        }
        let found = self.zookeeper.retained.as_ref();
        match (
            found.map(|(kept, version)| (kept.destroying, *version)),
            kept,
        ) {
            // An answer got lost.
            (None, None) => return Transacted::Stored(0),
            (Some((_, version)), _) if version != expected => return Transacted::Conflict,
            (None, Some(_)) => return Transacted::Conflict,
            (Some((true, _)), Some(kept)) if !kept.destroying => {
                self.wrong(|| "I4: the intention to destroy is taken back".to_owned());
            }
            (Some(_), _) => {}
        }
        note!(
            self,
            "kept of the deleted cluster: {:?}",
            kept.as_ref().map(|kept| (kept.destroying, kept.left.len()))
        );
        self.zookeeper.retained = kept.clone().map(|kept| (kept, expected + 1));
        Transacted::Stored(expected + 1)
    }
}

/// Whether a task may be ended because its member is launched again on its slot: by what is stored, and never that of a master
/// which could have handed over, unless somebody said that writes may wait.
fn may_be_restarted(record: &ClusterRecord, member: MemberId, task: &TaskId) -> bool {
    let known = &record.members[&member];
    let restart = known.restart.as_ref();
    let elected = record.elected().is_some_and(|it| it.member == member);
    let alone = record.members.len() == 1;
    let released = restart.filter(|it| it.released && it.task_id == *task);
    known.slot.is_some() && released.is_some_and(|it| !elected || alone || it.force)
}
