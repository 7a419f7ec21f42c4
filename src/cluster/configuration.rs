//! How the servers of a cluster are to be: size, settings and package; which of it each member has, and the change from one to the
//! next.
//!
//! A configuration has a number, its *revision*. Each member has the revision that its tasks are launched with; while that says something
//! else than what is wanted, the member is to be changed. Former configurations stay in the record as long as a member has
//! one, so that a member which ends in the middle of a change comes back as it was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    control::{Installer, ServerKind},
    flavour::{Flavour, ServerVersion},
    id::{MemberId, TaskId},
    size::Size,
};
use crate::time::Timestamp;

/// How a server is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The resources of the member.
    pub size: Size,
    /// The owner's settings, in the form of `my.cnf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub my_cnf: Option<String>,
    /// The package with the server; `None`: what `--installer-args` says for clusters that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
}

/// A package that `--installer-args` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// How it gets onto agents, as it was when the package was asked for.
    pub installer: Installer,
    /// What is in it, as `--installer-args` says.
    pub server: ServerKind,
}

/// The change to the configuration that is wanted: the last one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// The revision that is wanted. What it says stands in the cluster's parameters.
    pub revision: u64,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Whether writes may wait, or the cluster be down, while a member is restarted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// What members have that do not have the wanted revision, by revision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former: BTreeMap<u64, Configuration>,
    /// The member whose turn it is, until it is in its place again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// Why no further member is changed, if the change has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// When every member had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
}

/// A member is being changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The member.
    pub member: MemberId,
    /// Since when it is expected in its place again.
    pub since: Timestamp,
    /// The canary that it must have executed: one that was asked for when it was in its place again. What it has missed lies before that, and
    /// until it has received it, it acknowledges nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<u64>,
}

/// A change that has stopped at a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The member that did not come back.
    pub member: MemberId,
    /// When that was decided.
    pub at: Timestamp,
    /// The same as a sentence, with the member's last error.
    pub sentence: String,
}

/// A member's task is to be ended, so that the next one takes its place on its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The task that is to end. The restart is over when it has.
    pub task_id: TaskId,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Whether the next task is launched with the configuration that is wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
    /// Whether writes may wait, or the cluster be down, until it is back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Whether the task may be killed: it was seen that it can be done without. It is stored before the first kill.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

/// The longest text of settings, in bytes. It travels with each task through Mesos and stands in the cluster's record.
pub const MAX_MY_CNF: usize = 16 * 1024;

/// The name under which the package is asked for that clusters have which name none.
pub const DEFAULT_PACKAGE: &str = "default";

/// Whether a text can be the name of a package: 1 to 64 letters, digits, `.`, `_` and `-`.
pub fn is_package_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&text.len()) && text.chars().all(allowed) && text != DEFAULT_PACKAGE
}

impl Package {
    /// The one of that name; `None` for [`DEFAULT_PACKAGE`]. Others than those of `flavour`, if that is known, are not offered instead.
    ///
    /// # Errors
    /// That there is none, as a sentence.
    pub fn named(
        known: &[Self],
        name: &str,
        flavour: Option<Flavour>,
    ) -> Result<Option<Self>, String> {
        if name == DEFAULT_PACKAGE {
            return Ok(None);
        }
        let found = known.iter().find(|package| package.name == name);
        let found = found.cloned().map(Some);
        found.ok_or_else(|| {
            let fits = |package: &&Self| flavour.is_none_or(|it| it == package.server.flavour);
            let names: Vec<&str> = known
                .iter()
                .filter(fits)
                .map(|it| it.name.as_str())
                .collect();
            match names.is_empty() {
                true => {
                    "there are no packages to choose from: --installer-args names none".to_owned()
                }
                false => format!("there is no package {name}; there are {}", names.join(", ")),
            }
        })
    }
}

impl Configuration {
    /// The package's name, for people.
    pub fn package_name(&self) -> &str {
        self.package
            .as_ref()
            .map_or(DEFAULT_PACKAGE, |package| package.name.as_str())
    }
}

/// The series of MySQL that the next series can be reached from, and must not be passed over: 8.0 and those with long-term support
/// (MySQL manual, "Upgrade Paths").
const MYSQL_STEPS: [(u16, u16); 4] = [(5, 7), (8, 0), (8, 4), (9, 7)];

/// Why servers cannot go from one version to another while data and replication stay, as a sentence; `None`: they can.
///
/// * Within a series (the first two numbers) there is no restriction, but for MySQL's way back: within 5.7 and a series with long-term support
///   it is free, within 8.0 it ends at 8.0.35, and an innovation series has none (MySQL manual, "Downgrading MySQL").
/// * MariaDB: to any later series, in one step ("Upgrading Between Major MariaDB Versions"; replicas may be newer than their master). Not
///   back: data that a later series has written is not read by an earlier one.
/// * MySQL: to a later series as long as none with long-term support is passed over ("Upgrade Paths"). Not back.
pub fn version_hindrance(from: &ServerKind, to: &ServerKind) -> Option<String> {
    let series = |version: ServerVersion| (version.major, version.minor);
    let (old, new) = (series(from.version), series(to.version));
    if from.flavour != to.flavour {
        return Some(format!(
            "the data of {} {} cannot be taken over by {} {}; make a new cluster and load a dump into it",
            from.flavour, from.version, to.flavour, to.version
        ));
    }
    if old == new && to.version < from.version && !goes_back_within_series(from, to) {
        return Some(format!(
            "MySQL {} does not read what {} has written: within its series there is no way back that far",
            to.version, from.version
        ));
    }
    if new < old {
        return Some(format!(
            "{} {} does not read what {} has written, so there is no way back across series",
            to.flavour, to.version, from.version
        ));
    }
    let passed = MYSQL_STEPS
        .iter()
        .find(|step| old < **step && **step < new)
        .filter(|_| from.flavour == Flavour::Mysql);
    passed.map(|(major, minor)| {
        format!(
            "MySQL goes from {} to {} by way of {major}.{minor}: ask for a package of that series first",
            from.version, to.version
        )
    })
}

/// The first release of MySQL 8.0 that reads what later releases of the series have written. Before, releases changed the data's format.
const MYSQL_80_GOES_BACK_TO: u16 = 35;

/// Whether an earlier release reads what a later one of the same series has written.
fn goes_back_within_series(from: &ServerKind, to: &ServerKind) -> bool {
    let version = to.version;
    match (from.flavour, (version.major, version.minor)) {
        (Flavour::Mariadb, _) => true,
        (Flavour::Mysql, (8, 0)) => version.patch >= MYSQL_80_GOES_BACK_TO,
        (Flavour::Mysql, series) => MYSQL_STEPS.contains(&series),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn kind(text: &str) -> ServerKind {
        let (flavour, version) = text.split_once(' ').unwrap();
        ServerKind {
            flavour: flavour.parse().unwrap(),
            version: version.parse().unwrap(),
        }
    }

    #[test]
    fn versions_change_along_supported_paths_only() {
        for (from, to, refused) in [
            ("mariadb 10.11.19", "mariadb 10.11.20", None),
            ("mariadb 10.11.19", "mariadb 10.11.3", None),
            ("mariadb 10.6.1", "mariadb 11.8.6", None),
            ("mariadb 11.8.6", "mariadb 10.11.19", Some("no way back")),
            ("mariadb 10.11.19", "mysql 9.7.4", Some("new cluster")),
            ("mysql 8.0.40", "mysql 8.4.1", None),
            ("mysql 8.0.40", "mysql 9.7.4", Some("by way of 8.4")),
            ("mysql 8.4.1", "mysql 9.7.4", None),
            ("mysql 8.4.1", "mysql 9.2.0", None),
            ("mysql 9.2.0", "mysql 9.7.4", None),
            ("mysql 9.7.4", "mysql 8.4.1", Some("no way back")),
            ("mysql 9.7.4", "mysql 9.7.1", None),
            ("mysql 8.4.4", "mysql 8.4.0", None),
            ("mysql 8.0.40", "mysql 8.0.41", None),
            ("mysql 8.0.40", "mysql 8.0.35", None),
            ("mysql 8.0.40", "mysql 8.0.34", Some("no way back that far")),
            ("mysql 9.2.1", "mysql 9.2.0", Some("no way back that far")),
        ] {
            let told = version_hindrance(&kind(from), &kind(to));
            match refused {
                None => assert_eq!(told, None, "{from} to {to}"),
                Some(part) => assert!(told.unwrap().contains(part), "{from} to {to}"),
            }
        }
    }

    #[test]
    fn names_of_packages_are_short_words() {
        for good in ["11.8", "mysql-9.7_lts"] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in ["", "default", "a b", "ä", "a/b"] {
            assert!(!is_package_name(bad), "{bad}");
        }
    }
}
