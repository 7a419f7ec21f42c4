//! The data directory that was set aside last, and the export of what it holds beyond the cluster's history. Pure.

use std::time::Duration;

use super::{
    Data, Role, State,
    plan::{Plan, beyond},
};
use crate::{
    cluster::{
        control::{Beyond, SetAside},
        gtid::Position,
        id::DataId,
    },
    executor::action::Action,
    time::Timestamp,
};

/// The wait before an export that failed is tried again. What hinders it, such as a full disk, takes a while to be mended.
const RETRY_EXPORT_AFTER: Duration = Duration::from_secs(300);

/// A data directory that is not part of the history.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aside {
    data: DataId,
    beyond: Beyond,
    export: Export,
}

#[derive(Debug, Clone, PartialEq)]
enum Export {
    /// Not begun, or to be tried again then.
    Due(Option<Timestamp>),
    UnderWay,
    Done(String),
}

/// Begins the export once the directory is out of the way and nothing uses it any more.
pub(super) fn export(state: &State, now: Timestamp, plan: &mut Plan) {
    let Some(aside) = &state.aside else { return };
    let in_use = match state.data {
        Data::None { set_aside } => set_aside,
        Data::New(data) | Data::Restored(data) | Data::Copied { data, .. } | Data::InUse(data) => {
            Some(data)
        }
    };
    // The tool comes with the server.
    if in_use == Some(aside.data) || state.server.is_none() {
        return;
    }
    match aside.export {
        Export::Due(Some(at)) if now < at => plan.wake(at),
        Export::Due(_) => plan.actions.push(Action::Export {
            data: aside.data,
            beyond: Box::new(aside.beyond.clone()),
        }),
        Export::UnderWay | Export::Done(_) => {}
    }
}

/// What the report says of it.
pub(super) fn set_aside(state: &State) -> Option<SetAside> {
    let aside = state.aside.as_ref()?;
    Some(SetAside {
        data: aside.data,
        extras: aside.beyond.extras.clone(),
        export: match &aside.export {
            Export::Done(path) => Some(path.clone()),
            Export::Due(_) | Export::UnderWay => None,
        },
        problem: state.export_problem.clone(),
    })
}

impl State {
    /// The same task's data directory was set aside by an earlier executor, which did not get as far as to export it.
    pub fn with_unexported(mut self, unexported: Option<(DataId, Beyond)>) -> Self {
        self.aside = unexported.map(|(data, beyond)| Aside {
            data,
            beyond,
            export: Export::Due(None),
        });
        self
    }

    /// What a directory holds that is to be set aside.
    pub(super) fn beyond_of(&self, data: Option<DataId>) -> Option<Box<Beyond>> {
        let aside = self.aside.as_ref()?;
        (data == Some(aside.data)).then(|| Box::new(aside.beyond.clone()))
    }

    /// The member is quarantined: what its data holds beyond the history is remembered until it is exported.
    pub(super) fn note_beyond(&mut self) {
        let (Role::Quarantined(_), Some(data)) = (self.role, self.data_in_use()) else {
            return;
        };
        if let Some(beyond) = beyond(self) {
            self.export_problem = None;
            self.aside = Some(Aside {
                data,
                beyond,
                export: Export::Due(None),
            });
        }
    }

    /// The data directory is set aside though nothing in it is beyond the history. Its export says so, and then it goes
    /// like any other.
    pub(super) fn note_left_behind(&mut self) {
        let (Role::Held(_), Some(data), Some(held)) = (self.role, self.data_in_use(), &self.held)
        else {
            return;
        };
        let beyond = Beyond {
            extras: Position::empty(held.position.flavour()),
            common: held.position.clone(),
            executed: held.executed.clone(),
        };
        self.export_problem = None;
        self.aside = Some(Aside {
            data,
            beyond,
            export: Export::Due(None),
        });
    }

    /// An export was handed over.
    pub(super) fn export_begun(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.export = Export::UnderWay;
        }
    }

    /// An export has ended.
    pub(super) fn exported(
        &mut self,
        data: DataId,
        export: Result<String, String>,
        now: Timestamp,
    ) {
        let Some(aside) = self.aside.as_mut().filter(|aside| aside.data == data) else {
            return;
        };
        match export {
            Ok(path) => {
                aside.export = Export::Done(path);
                self.export_problem = None;
            }
            Err(problem) => {
                aside.export = Export::Due(Some(now.plus(RETRY_EXPORT_AFTER)));
                self.export_problem = Some(problem);
            }
        }
    }
}
