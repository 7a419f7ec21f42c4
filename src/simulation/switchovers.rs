//! Switchovers: who asks for them, and what their steps do to the models, statement by statement, as
//! `executor/handover.rs` does to real servers.

use super::{
    Bend,
    world::{MILLISECOND, Moment, SECOND, World, note},
};
use crate::{
    cluster::{gtid::Position, id::MemberId},
    executor::event::Outcome,
    rules::Rule,
    scheduler::event::Wish,
};

/// How long the server waits for commits that are under way before it gives up closing: `lock_wait_timeout`.
const CLOSES_WITHIN: u64 = SECOND;

/// Without food for so long nothing ends: there is no watchdog.
const UNGUARDED: Moment = Moment::MAX / 2;

impl World {
    // === who asks ===

    /// An operator asks for switchovers now and then.
    pub fn switchovers_begin(&mut self) {
        let Some(every) = self.setup.switchover_every else {
            return;
        };
        let pause = self.chance.between(1, every * 2);
        self.after(pause, |world| {
            if world.faults_go_on {
                let member = MemberId(world.chance.below(u64::from(world.setup.nodes)) as u32);
                let to = world.chance.percent(60).then_some(member);
                world.ask_for_switchover(to);
                world.switchovers_begin();
            }
        });
    }

    pub fn ask_for_switchover(&mut self, to: Option<MemberId>) {
        self.ask(Wish::Switchover { to });
    }

    // === what the steps do ===

    /// Waits until the target has executed what the server has executed by now.
    pub fn approach(
        &mut self,
        executor: usize,
        number: u64,
        target: (usize, u16),
        deadline: Moment,
    ) {
        self.statement(executor, number, move |world, process| {
            let position = world.processes[process].executed.clone();
            let then = move |world: &mut Self, _: Position| {
                world.step_ends(executor, number, Ok(Outcome::Finished));
            };
            world.wait_for_target(executor, number, target, position, deadline, then);
        });
    }

    /// Closes the server for writes, and waits until the target has everything.
    pub fn close(&mut self, executor: usize, number: u64, target: (usize, u16), deadline: Moment) {
        self.statement(executor, number, move |world, process| {
            // Whoever begins to write now waits for the lock, and is refused after it.
            world.processes[process].read_only = true;
            let begun = world.now;
            let gives_up = begun + CLOSES_WITHIN;
            world.wait_for_commits(executor, number, process, gives_up, move |world| {
                let position = world.processes[process].executed.clone();
                let then = move |world: &mut Self, position| {
                    let took = std::time::Duration::from_micros(world.now - begun);
                    note!(world, "mysqld {process} is closed for writes at {position}");
                    world.step_ends(executor, number, Ok(Outcome::Closed { position, took }));
                };
                world.wait_for_target(executor, number, target, position, deadline, then);
            });
        });
    }

    /// `SET GLOBAL read_only` waits for commits that are under way; on the disk, or for acknowledgements.
    fn wait_for_commits(
        &mut self,
        executor: usize,
        number: u64,
        process: usize,
        gives_up: Moment,
        then: impl FnOnce(&mut Self) + 'static,
    ) {
        if self.processes[process].waiting.is_empty() {
            return then(self);
        }
        if self.now >= gives_up {
            self.processes[process].read_only = false;
            return self.step_fails(executor, number, "commits are under way");
        }
        self.after_on_process(MILLISECOND, process, move |world| {
            // The server goes on with its statement whether anybody waits for it or not.
            world.wait_for_commits(executor, number, process, gives_up, then);
        });
    }

    fn wait_for_target(
        &mut self,
        executor: usize,
        number: u64,
        target: (usize, u16),
        position: Position,
        deadline: Moment,
        then: impl FnOnce(&mut Self, Position) + 'static,
    ) {
        let host = self.executors[executor].host;
        let found = self.listening.get(&target).copied();
        let found = found.filter(|p| self.both_open(host, target.0) && !self.processes[*p].hung);
        let is_there = found.is_some_and(|p| self.processes[p].executed.contains(&position));
        if is_there {
            let delay = self.network() * 2;
            return self.after(delay, move |world| {
                world.on_executor(executor, move |world| then(world, position));
            });
        }
        if self.now >= deadline {
            return self.step_fails(executor, number, "the target does not get there");
        }
        self.after(MILLISECOND, move |world| {
            world.on_executor(executor, move |world| {
                if world.is_under_way(executor, number) {
                    world.wait_for_target(executor, number, target, position, deadline, then);
                }
            });
        });
    }

    /// A deposed master that is closed becomes a voter like any other.
    pub fn yield_place(&mut self, executor: usize, number: u64, position: Option<Position>) {
        let looks = self.bend != Bend::Rule(Rule::OnlyClosedYields);
        self.statement(executor, number, move |world, process| {
            let it = &mut world.processes[process];
            let stands_still =
                it.read_only && it.waiting.is_empty() && Some(&it.executed) == position.as_ref();
            if looks && !stands_still {
                return world.step_fails(executor, number, "it is not closed as it was");
            }
            it.k = 0;
            it.fed_at = UNGUARDED;
            // Commits that wait are released, as if they were acknowledged.
            world.release(process);
            world.statement(executor, number, move |world, process| {
                let executed = world.processes[process].executed.clone();
                let position = world.held_by(&world.data[world.processes[process].data]);
                let outcome = Outcome::Held { position, executed };
                world.step_ends(executor, number, Ok(outcome));
            });
        });
    }
}
