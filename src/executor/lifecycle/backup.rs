//! Making a backup beside everything else that the member does. Pure.
//!
//! A backup changes nothing on the server, so it is no step: it goes on through elections. It is begun once for each number; whatever
//! becomes of it, the scheduler says what comes next. When the server ends, what makes the backup fails by itself.

use super::{Process, Role, State, plan::Plan};
use crate::{
    cluster::backup::{BackupOrder, BackupReport, BackupState},
    executor::action::Action,
};

/// What is known of backups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backup {
    /// The last one that was begun here, and how far it is.
    last: Option<BackupReport>,
}

impl Backup {
    fn under_way(&self) -> Option<u64> {
        let last = self.last.as_ref()?;
        matches!(last.state, BackupState::Running { .. }).then_some(last.number)
    }

    fn begun(&self, number: u64) -> bool {
        self.last.as_ref().is_some_and(|last| last.number >= number)
    }
}

/// What this task is to make, as the promised goal says.
fn order(state: &State) -> Option<&BackupOrder> {
    let order = state.promised_goal()?.backup.as_ref()?;
    let is_mine = order.member == state.task.member && order.task_id == state.task.task_id;
    is_mine.then_some(order)
}

/// Begins what is to be made, and gives up what is not wanted any more.
pub(super) fn make(state: &State, plan: &mut Plan) {
    // A goal whose epoch is not promised yet says nothing about it: the promise takes milliseconds.
    if state.promised_goal().is_none() {
        return;
    }
    let order = order(state);
    let wanted = order.map(|order| order.number);
    if let Some(number) = state.backup.under_way().filter(|n| Some(*n) != wanted) {
        plan.actions.push(Action::AbandonBackup { number });
    }
    let Some(order) = order.filter(|order| !state.backup.begun(order.number)) else {
        return;
    };
    let runs = matches!(state.process, Process::Up { killed: false, .. });
    let has_data = match state.role {
        Role::Master(_) => true,
        Role::Following { .. } => state.serving.is_some_and(|serving| serving.ready),
        Role::Closed
        | Role::Held(_)
        | Role::Applied(_)
        | Role::Prepared(_)
        | Role::Marked(_)
        | Role::Refused(_)
        | Role::Spoilt(_)
        | Role::Quarantined(_) => false,
    };
    if let (true, true, Some(goal)) = (runs, has_data, state.promised_goal()) {
        plan.actions.push(Action::BackUp {
            order: Box::new(order.clone()),
            epoch: goal.epoch,
            user: goal.user.name.clone(),
        });
    }
}

/// What the report says of it, as long as it is asked for.
pub(super) fn told(state: &State) -> Option<BackupReport> {
    let order = order(state)?;
    let last = state.backup.last.as_ref();
    last.filter(|last| last.number == order.number).cloned()
}

impl State {
    pub(super) fn backup_begun(&mut self, number: u64) {
        self.backup.last = Some(BackupReport {
            number,
            state: BackupState::Running { bytes: 0 },
        });
    }

    pub(super) fn backup_given_up(&mut self, number: u64) {
        self.backup_is(
            number,
            BackupState::Failed {
                why: "it was given up".to_owned(),
            },
        );
    }

    /// How far it is. One that was given up may still say something.
    pub(super) fn backup_is(&mut self, number: u64, state: BackupState) {
        if self.backup.under_way() == Some(number) {
            self.backup.last = Some(BackupReport { number, state });
        }
    }
}
