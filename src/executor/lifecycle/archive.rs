//! Archiving the master's binlogs beside everything else that it does. Pure.
//!
//! It changes nothing on the server, so it is no step. It begins when the master is open, with the epoch's marker acknowledged, and is given up
//! with the epoch, the process or the order.

use super::{Process, Role, State, plan::Plan};
use crate::{
    cluster::{
        backup::{ArchiveOrder, ArchiveReport, BackupStore},
        id::{DataId, Epoch, ProcessId},
    },
    executor::action::Action,
};

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Archive {
    /// Counts what was begun.
    number: u64,
    under_way: Option<Wanted>,
    told: Option<ArchiveReport>,
}

/// What is to be archived where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    epoch: Epoch,
    process: ProcessId,
    data: DataId,
    store: BackupStore,
}

fn wanted(state: &State) -> Option<Wanted> {
    let goal = state.promised_goal()?;
    // That it was begun is no news to the one that has begun it.
    let ArchiveOrder { store, begun: _ } = goal.archive.clone()?;
    let Role::Master(epoch) = state.role else {
        return None;
    };
    let Process::Up {
        id, killed: false, ..
    } = state.process
    else {
        return None;
    };
    (epoch == goal.epoch).then_some(Wanted {
        epoch,
        process: id,
        data: state.data_in_use()?,
        store,
    })
}

/// Begins what is wanted, and gives up what is not wanted any more.
pub(super) fn keep(state: &State, plan: &mut Plan) {
    let wanted = wanted(state);
    if state.archive.under_way == wanted {
        return;
    }
    if state.archive.under_way.is_some() {
        plan.actions.push(Action::AbandonArchive {
            number: state.archive.number,
        });
    }
    let (Some(wanted), Some(goal)) = (wanted, state.promised_goal()) else {
        return;
    };
    let Some(order) = goal.archive.clone() else {
        return;
    };
    plan.actions.push(Action::Archive {
        number: state.archive.number + 1,
        order: Box::new(order),
        epoch: wanted.epoch,
        data: wanted.data,
        lineage: goal.lineage.clone(),
    });
}

/// What the report says of it.
pub(super) fn told(state: &State) -> Option<ArchiveReport> {
    state.archive.under_way.as_ref()?;
    state.archive.told.clone()
}

impl State {
    pub(super) fn archive_begun(&mut self, number: u64) {
        self.archive = Archive {
            number,
            under_way: wanted(self),
            told: None,
        };
    }

    pub(super) fn archive_given_up(&mut self) {
        self.archive.under_way = None;
        self.archive.told = None;
    }

    /// How far it is. One that was given up may still say something.
    pub(super) fn archive_is(&mut self, number: u64, report: ArchiveReport) {
        if self.archive.under_way.is_some() && self.archive.number == number {
            self.archive.told = Some(report);
        }
    }
}
