//! The members: what their executors do and report.

use super::*;
use crate::cluster::{control::Goal, voters::Terms};

impl World {
    /// Nothing is heard of a member any more, whose instance lives on.
    pub fn vanish(&mut self, member: u32) {
        self.instance(member).silent = true;
        let task_id = self.task_of(member);
        self.tell(Event::ReportGone {
            cluster: self.called.clone(),
            task_id,
        });
    }

    /// Every instance does what the goal says, and reports, until nothing changes any more.
    pub fn converge(&mut self) {
        for _ in 0..100 {
            let before = self.records.clone();
            let tasks: Vec<TaskId> = self.instances.keys().cloned().collect();
            for task in tasks {
                self.report(&task);
            }
            if self.records == before {
                return;
            }
        }
        panic!(
            "the cluster does not converge: {}",
            self.explanation().standing.membership.join("; ")
        );
    }

    /// What an executor does and reports under the stored goal.
    pub fn report(&mut self, task: &TaskId) {
        let Some((record, _)) = self.records.get(&self.called) else {
            return;
        };
        let goal = record.goal();
        let flavour = self.flavour;
        let able = self.instances.values().filter(|other| {
            let there =
                other.process.is_some() && !other.silent && !other.broken && !other.quarantined;
            there
                && goal.may_acknowledge(other.member, other.data)
                && !goal.terms.barred.contains(&other.member)
        });
        let able: BTreeSet<MemberId> = able.map(|other| other.member).collect();
        let Some(instance) = self.instances.get_mut(task) else {
            return;
        };
        if instance.silent || record.task(instance.member).map(|t| &t.task_id) != Some(task) {
            return;
        }
        instance.promised = instance.promised.max(goal.epoch);
        let stands = stands(instance, &goal, flavour, &able);
        let is_master = matches!(stands.state, MemberState::Master { .. });
        let report = Report {
            backup: goal.backup.as_ref().and_then(|order| {
                let is_its = order.task_id == *task;
                let state = instance.backup.clone().filter(|_| is_its)?;
                let number = order.number;
                Some(BackupReport { number, state })
            }),
            archive: instance.archived_in.clone().map(|url| ArchiveReport {
                begun_in: Some(url),
                ..ArchiveReport::default()
            }),
            format: 1,
            uuid: record.uuid,
            member: instance.member,
            task_id: task.clone(),
            server: Some(ServerKind {
                flavour,
                version: "10.11.19".parse().unwrap(),
            }),
            data: Some(instance.data),
            process: instance.process,
            promised: instance.promised,
            state: stands.state,
            held: stands.held,
            canary: stands.canary,
            terms: stands.terms,
            voters_seen: goal.voters.version,
            acknowledges: goal.may_acknowledge(instance.member, instance.data),
            problem: None,
            trouble: None,
            wants_donor: None,
            set_aside: None,
            stream_port: None,
            lag_seconds: instance.lag_seconds,
            held_back: instance.held_back,
            handover: answer(instance, &goal, flavour).filter(|_| is_master),
        };
        self.tell(Event::Reported {
            cluster: self.called.clone(),
            report: Box::new(report),
        });
    }
}

/// Where a member stands under a goal.
struct Stands {
    state: MemberState,
    held: Option<Held>,
    canary: u64,
    terms: Option<Terms>,
}

/// `able` are those who can acknowledge.
fn stands(instance: &Instance, goal: &Goal, flavour: Flavour, able: &BTreeSet<MemberId>) -> Stands {
    let position = || Position::parse(flavour, &instance.position).unwrap();
    let only = |state| Stands {
        state,
        held: None,
        canary: 0,
        terms: None,
    };
    let held = |state| Stands {
        held: Some(Held {
            epoch: goal.epoch,
            position: position(),
            executed: position(),
        }),
        ..only(state)
    };
    let Some(process) = instance.process else {
        return only(MemberState::Dead);
    };
    let epoch = goal.epoch;
    match &goal.phase {
        GoalPhase::Elected(master) if master.member == instance.member => {
            if (master.process, master.data) != (process, instance.data) {
                return only(MemberState::Closed);
            }
            let others = able.iter().filter(|other| **other != master.member);
            let writable = others.count() as u32 >= goal.acknowledgements()
                && instance.unheard_in != Some(epoch);
            Stands {
                terms: Some(goal.terms.clone()),
                canary: if writable { goal.canary } else { 0 },
                ..only(MemberState::Master { epoch, writable })
            }
        }
        GoalPhase::Elected(_) if instance.quarantined => held(MemberState::Quarantined),
        GoalPhase::Elected(_) => {
            let barred = goal.terms.barred.contains(&instance.member);
            let ready = !barred && !instance.broken;
            Stands {
                canary: if instance.behind { 0 } else { goal.canary },
                ..only(MemberState::Following { epoch, ready })
            }
        }
        GoalPhase::Electing | GoalPhase::Unborn | GoalPhase::Deleting => held(MemberState::Closed),
    }
}

/// What a master answers that is to hand its place over.
fn answer(instance: &Instance, goal: &Goal, flavour: Flavour) -> Option<Answer> {
    let number = goal.handover?.number;
    let state = match instance.answers {
        Answers::Closes => AnswerState::Closed(Closed {
            position: Position::parse(flavour, &instance.position).unwrap(),
            millis: 7,
        }),
        Answers::Keeps => AnswerState::Kept {
            why: "it was not to be".to_owned(),
        },
        Answers::Nothing => return None,
    };
    Some(Answer { number, state })
}
