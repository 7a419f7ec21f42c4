//! Asking the Mesos master for the states of tasks.
//!
//! After each subscription it is asked for every task of the records *by name*, and again with growing waits for
//! those that it has said nothing of: a master that has just failed over says nothing of a task until its agent is
//! back (Mesos page "Reconciliation"). And it is asked for *all* that it knows, at once and then now and then: that
//! finds tasks which no record explains, and updates that got lost.
//!
//! Nothing of this is stored: a successor subscribes, and so asks anew.

use std::{collections::BTreeMap, time::Duration};

use super::action::Action;
use crate::{backoff::Backoff, cluster::id::TaskId, time::Timestamp};

/// The waits between two questions by name. An agent that is there comes back to a new master within seconds; the
/// longest wait bounds what asking for the tasks of one that is not costs.
const BY_NAME: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How often the master is asked for all that it knows. It answers with one message per task, so this is to be
/// seldom; what it finds was missed by everything else and has no haste.
const ALL_EVERY: Duration = Duration::from_secs(600);

/// How many tasks stand in one question. Some 100 bytes each: far below what a master takes in one request.
const MOST_PER_CALL: usize = 1000;

/// What was asked and not answered yet, and when to ask again.
#[derive(Debug)]
pub struct Reconciliation {
    /// The tasks asked for by name of which nothing was heard since the subscription, each with its agent.
    unanswered: BTreeMap<TaskId, String>,
    /// How often they were asked for.
    asked: u32,
    by_name_at: Timestamp,
    all_at: Timestamp,
    /// From 0 to 1: keeps several schedulers that lost the same master from asking in step.
    chance: f64,
}

impl Reconciliation {
    /// Nothing is asked before the first subscription. `chance` is a number from 0 to 1 that was drawn for this
    /// scheduler.
    pub fn new(chance: f64) -> Self {
        Self {
            unanswered: BTreeMap::new(),
            asked: 0,
            by_name_at: Timestamp::FAR_FUTURE,
            all_at: Timestamp::FAR_FUTURE,
            chance,
        }
    }

    /// A master has taken the framework in: whatever it was asked for before must be asked again.
    pub fn subscribed(&mut self, tasks: BTreeMap<TaskId, String>, now: Timestamp) {
        self.unanswered = tasks;
        self.asked = 0;
        self.by_name_at = now;
        self.all_at = now;
    }

    /// The master is out of reach.
    pub fn lost(&mut self) {
        *self = Self::new(self.chance);
    }

    /// Something was heard of a task.
    pub fn answered(&mut self, task_id: &TaskId) {
        self.unanswered.remove(task_id);
    }

    /// When something is to be asked next.
    pub fn due(&self) -> Timestamp {
        match self.unanswered.is_empty() {
            true => self.all_at,
            false => self.by_name_at.min(self.all_at),
        }
    }

    /// What is to be asked now. By name first: so the answers to that are not waited for behind those to the other.
    pub fn questions(&self, now: Timestamp) -> Vec<Action> {
        let mut questions = Vec::new();
        if self.by_name_at <= now {
            let tasks: Vec<_> = self.unanswered.clone().into_iter().collect();
            let some = |tasks: &[_]| Action::Reconcile {
                tasks: tasks.to_vec(),
            };
            questions.extend(tasks.chunks(MOST_PER_CALL).map(some));
        }
        if self.all_at <= now {
            questions.push(Action::ReconcileAll);
        }
        questions
    }

    /// [`Reconciliation::questions`] are being asked.
    pub fn asked(&mut self, now: Timestamp) {
        if self.by_name_at <= now {
            let (first, longest) = BY_NAME;
            let wait = Backoff::try_new(first, longest)
                .map_or(longest, |backoff| backoff.delay(self.asked, self.chance));
            self.by_name_at = now.plus(wait);
            self.asked = self.asked.saturating_add(1);
        }
        if self.all_at <= now {
            // Between nine tenths and eleven tenths of it.
            self.all_at = now.plus(ALL_EVERY.mul_f64(0.9 + 0.2 * self.chance));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn task(number: u32) -> TaskId {
        TaskId::from_wire(format!("t{number}"))
    }

    /// Plays `seconds` and returns when was asked by name, for how many, and when for all.
    fn play(it: &mut Reconciliation, from: u64, to: u64) -> (Vec<(u64, usize)>, Vec<u64>) {
        let (mut by_name, mut all) = (Vec::new(), Vec::new());
        for second in from..to {
            if it.due() > at(second) {
                continue;
            }
            for question in it.questions(at(second)) {
                match question {
                    Action::Reconcile { tasks } => by_name.push((second, tasks.len())),
                    _ => all.push(second),
                }
            }
            it.asked(at(second));
        }
        (by_name, all)
    }

    #[test]
    fn what_is_not_answered_is_asked_for_again_more_and_more_seldom() {
        let mut it = Reconciliation::new(1.0);
        assert_eq!(it.due(), Timestamp::FAR_FUTURE);
        let tasks = (0..3).map(|n| (task(n), "a".to_owned())).collect();
        it.subscribed(tasks, at(0));
        let (by_name, all) = play(&mut it, 0, 20);
        assert_eq!(by_name, [(0, 3), (2, 3), (6, 3), (14, 3)]);
        assert_eq!(all, [0]);
        it.answered(&task(0));
        it.answered(&task(2));
        let (by_name, _) = play(&mut it, 20, 200);
        assert_eq!(by_name, [(30, 1), (62, 1), (122, 1), (182, 1)]);
        it.answered(&task(1));
        let (by_name, all) = play(&mut it, 200, 3000);
        assert_eq!(by_name, []);
        assert_eq!(all, [660, 1320, 1980, 2640]);
        // A new subscription begins anew, and without one nothing is asked.
        it.lost();
        assert_eq!(it.due(), Timestamp::FAR_FUTURE);
        it.subscribed(BTreeMap::from([(task(1), String::new())]), at(3000));
        let (by_name, all) = play(&mut it, 3000, 3003);
        assert_eq!((by_name, all), (vec![(3000, 1), (3002, 1)], vec![3000]));
    }

    #[test]
    fn a_question_holds_a_bounded_number_of_tasks() {
        let mut it = Reconciliation::new(0.0);
        let tasks = (0..2500).map(|n| (task(n), "a".to_owned())).collect();
        it.subscribed(tasks, at(0));
        let (by_name, _) = play(&mut it, 0, 1);
        assert_eq!(by_name, [(0, 1000), (0, 1000), (0, 500)]);
    }
}
