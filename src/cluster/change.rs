//! Other settings for a cluster that is there: what was asked for, read once at the door.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    backup_rules::{BackupKeep, BackupSchedule},
    configuration::{DEFAULT_PACKAGE, MAX_MY_CNF, is_package_name},
    flavour::Flavour,
    size::SizeChange,
    spec::{
        ClusterSpec, Fault, ReplaceAfter, note, read_durability, read_keep, read_schedule,
        shortened,
    },
    voters::Durability,
};
use crate::mysql::mycnf;

/// Other settings for a cluster that is there. `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What an acknowledged write is to be worth. A cluster of one node may be `majority` too: it makes no difference before
    /// it has more.
    pub durability: Option<Durability>,
    /// How long an agent may be away before its member is replaced.
    pub replace_after: Option<ReplaceAfter>,
    /// When backups are made without being asked for.
    pub backup_schedule: Option<BackupSchedule>,
    /// Which backups are kept.
    pub backup_keep: Option<BackupKeep>,
    /// Other resources of each member.
    pub size: SizeChange,
    /// Other settings of the servers; `Some(None)`: none at all.
    pub my_cnf: Option<Option<String>>,
    /// The name of the package; [`DEFAULT_PACKAGE`] for what clusters have that name none.
    pub package: Option<String>,
    /// Whether it is accepted that writes wait, or the cluster is down, while a member is restarted for it.
    pub force: bool,
    /// Whether nothing is to be done but to tell the steps.
    pub plan: bool,
}

/// A change as it was asked for. `None` means "not given".
#[derive(Debug, Clone, Default)]
pub struct ChangeRequest {
    /// `durability`
    pub durability: Option<String>,
    /// `replace_after`
    pub replace_after: Option<String>,
    /// `backup_schedule`
    pub backup_schedule: Option<String>,
    /// `backup_keep`
    pub backup_keep: Option<String>,
    /// `size`
    pub size: Option<String>,
    /// `cpus`
    pub cpus: Option<String>,
    /// `mem`
    pub mem: Option<String>,
    /// `disk`
    pub disk: Option<String>,
    /// `my_cnf`
    pub my_cnf: Option<String>,
    /// `package`
    pub package: Option<String>,
    /// `force`
    pub force: Option<String>,
    /// `plan`
    pub plan: Option<String>,
}

/// A setting that has another value now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The setting, as its form field is called.
    pub field: String,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// What follows from a change of how servers are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The steps that are to be taken, as things are, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Whether a change goes on that had stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// Whether nothing was recorded, because only the steps were asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub planned: bool,
}

impl Change {
    /// Reads a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(request: ChangeRequest) -> Result<Self, Vec<Fault>> {
        let ChangeRequest {
            durability,
            replace_after,
            backup_schedule,
            backup_keep,
            size,
            cpus,
            mem,
            disk,
            my_cnf,
            package,
            force,
            plan,
        } = request;
        let mut faults = Vec::new();
        let durability = note(read_durability(durability), "durability", &mut faults);
        let replace_after = replace_after.map(|text| text.parse::<ReplaceAfter>());
        let replace_after = note(replace_after.transpose(), "replace_after", &mut faults);
        let schedule = read_schedule(backup_schedule);
        let schedule = note(schedule, "backup_schedule", &mut faults);
        let keep = note(read_keep(backup_keep), "backup_keep", &mut faults);
        let size = read_size([size, cpus, mem, disk], &mut faults);
        let my_cnf = note(read_my_cnf(my_cnf), "my_cnf", &mut faults);
        let package = note(read_package(package), "package", &mut faults);
        let force = note(read_yes_or_no("force", force), "force", &mut faults);
        let plan = note(read_yes_or_no("plan", plan), "plan", &mut faults);
        let settings = (durability, replace_after, schedule, keep);
        let servers = (my_cnf, package, force, plan);
        match (settings, servers) {
            (
                (Some(durability), Some(replace_after), Some(backup_schedule), Some(backup_keep)),
                (Some(my_cnf), Some(package), Some(force), Some(plan)),
            ) if faults.is_empty() => {
                let change = Self {
                    durability,
                    replace_after,
                    backup_schedule,
                    backup_keep,
                    size,
                    my_cnf,
                    package,
                    force,
                    plan,
                };
                let nothing = Self {
                    force,
                    plan,
                    ..Self::default()
                };
                if change == nothing {
                    return Err(vec![Fault::new("durability", NOTHING_TO_CHANGE)]);
                }
                Ok(change)
            }
            _ => Err(faults),
        }
    }

    /// Whether it says anything of how servers are to be.
    pub fn configures(&self) -> bool {
        self.size != SizeChange::default() || self.my_cnf.is_some() || self.package.is_some()
    }

    /// Puts the settings into `spec`, all but the package, which is looked up first. Gives those that had another value.
    pub fn apply(&self, spec: &mut ClusterSpec) -> Vec<Changed> {
        let Self {
            durability,
            replace_after,
            backup_schedule,
            backup_keep,
            size,
            my_cnf,
            package: _,
            force: _,
            plan: _,
        } = self;
        let mut changed = Vec::new();
        if let Some(to) = durability.filter(|to| *to != spec.durability) {
            changed.push(Changed::new("durability", spec.durability, to));
            spec.durability = to;
        }
        if let Some(to) = replace_after.filter(|to| Some(*to) != spec.replace_after) {
            let from = spec.replace_after;
            let from = from.map_or("as --replace-after says".to_owned(), |it| it.to_string());
            changed.push(Changed::new("replace_after", from, to));
            spec.replace_after = Some(to);
        }
        let change = (backup_schedule.as_ref(), &mut spec.backup_schedule);
        changed.extend(set(change, "backup_schedule", "as --backup-schedule says"));
        let change = (backup_keep.as_ref(), &mut spec.backup_keep);
        changed.extend(set(change, "backup_keep", "as --backup-keep says"));
        let to = size.applied_to(spec.size);
        if to != spec.size {
            changed.push(Changed::new("size", spec.size, to));
            spec.size = to;
        }
        if let Some(to) = my_cnf.as_ref().filter(|to| **to != spec.my_cnf) {
            let (from, to_told) = (extent(spec.my_cnf.as_ref()), extent(to.as_ref()));
            changed.push(Changed::new("my_cnf", from, to_told));
            spec.my_cnf.clone_from(to);
        }
        changed
    }
}

impl Changed {
    /// A setting's field, and its values.
    pub fn new(field: &str, from: impl ToString, to: impl ToString) -> Self {
        Self {
            field: field.to_owned(),
            from: from.to_string(),
            to: to.to_string(),
        }
    }
}

/// Puts what is given in the place of a setting that may have no value of its own, which `unset` says then.
fn set<T: Clone + PartialEq + fmt::Display>(
    (to, setting): (Option<&T>, &mut Option<T>),
    field: &str,
    unset: &str,
) -> Option<Changed> {
    let to = to.filter(|to| setting.as_ref() != Some(*to))?;
    let from = setting.replace(to.clone());
    let from = from.map_or_else(|| unset.to_owned(), |from| from.to_string());
    Some(Changed::new(field, from, to))
}

/// How much there is of a text that may be long.
fn extent(my_cnf: Option<&String>) -> String {
    match my_cnf {
        None => "no settings".to_owned(),
        Some(text) => format!("{} lines", text.lines().count()),
    }
}

fn read_size(texts: [Option<String>; 4], faults: &mut Vec<Fault>) -> SizeChange {
    let [size, cpus, mem, disk] = texts;
    let mut change = SizeChange::default();
    if let Some(text) = size {
        match SizeChange::parse(&text) {
            Ok(read) => change = read,
            Err(found) => faults.extend(found.into_iter().map(|it| Fault::new("size", it))),
        }
    }
    // What is given by itself counts more than what stands in `size`.
    for (key, text) in [("cpus", cpus), ("mem", mem), ("disk", disk)] {
        if let Some(text) = text
            && let Err(fault) = change.set(key, &text)
        {
            faults.push(Fault::new(key, fault));
        }
    }
    change
}

/// Reads an owner's settings; `Some(None)`: there are to be none.
///
/// # Errors
/// What is wrong with them, as a sentence.
pub(super) fn read_my_cnf(text: Option<String>) -> Result<Option<Option<String>>, String> {
    let Some(text) = text else { return Ok(None) };
    if text.len() > MAX_MY_CNF {
        return Err(format!("my_cnf must have at most {MAX_MY_CNF} bytes"));
    }
    if text.contains('\0') {
        return Err("my_cnf must not contain NUL".to_owned());
    }
    let says_something = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with(['#', ';'])
    };
    if !text.lines().any(says_something) {
        return Ok(Some(None));
    }
    if let Some(setting) = names_a_path(&text) {
        return Err(format!(
            "my_cnf is refused: {setting} names a file or a folder of the host, which is not the cluster's; remove it"
        ));
    }
    // What one flavour alone refuses is known with the cluster's.
    match mycnf::check_user_defaults(Flavour::Mysql, &text) {
        Ok(()) => Ok(Some(Some(text.replace("\r\n", "\n")))),
        Err(refused) => Err(format!("my_cnf is refused: {refused}")),
    }
}

/// A setting whose value leads out of the member's folder. The server, which is the framework's user, could write there what the
/// cluster's owner likes.
fn names_a_path(text: &str) -> Option<String> {
    const NO_PATHS: [&str; 2] = ["default_time_zone", "init_connect"];
    text.lines().find_map(|line| {
        let line = line.trim();
        let (name, value) = line.split_once('=')?;
        let name = name.trim().replace('-', "_").to_ascii_lowercase();
        let leads_out = value.contains('/') || value.contains("..") || value.contains('\\');
        let is_setting = !line.starts_with(['#', ';', '[']);
        (is_setting && leads_out && !NO_PATHS.contains(&name.as_str())).then(|| shortened(&name))
    })
}

/// Reads the name of a package.
///
/// # Errors
/// That it cannot be one, as a sentence.
pub(super) fn read_package(name: Option<String>) -> Result<Option<String>, String> {
    match name {
        Some(name) if name != DEFAULT_PACKAGE && !is_package_name(&name) => Err(format!(
            "package must be the name of one of --installer-args, or default, not {:?}",
            shortened(&name)
        )),
        name => Ok(name),
    }
}

/// Reads a field that is `true` or `false`, the latter if it is not given.
///
/// # Errors
/// What would be right, as a sentence.
pub fn read_yes_or_no(field: &str, text: Option<String>) -> Result<bool, String> {
    match text.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(format!("{field} must be true or false")),
    }
}

const NOTHING_TO_CHANGE: &str = "nothing is given that is to be changed; give size, cpus, mem, disk, my_cnf, package, replace_after=TIME, backup_schedule=SCHEDULE, backup_keep=RULE, durability=majority or durability=async";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn my_cnf(text: &str) -> Result<Change, Vec<Fault>> {
        Change::check(ChangeRequest {
            my_cnf: Some(text.to_owned()),
            ..ChangeRequest::default()
        })
    }

    #[test]
    fn settings_that_say_nothing_are_none() {
        for text in ["#", "\n ; a\n", "  "] {
            assert_eq!(my_cnf(text).unwrap().my_cnf, Some(None), "{text:?}");
        }
        let given = my_cnf("[mysqld]\r\nmax_connections=7").unwrap().my_cnf;
        assert_eq!(given, Some(Some("[mysqld]\nmax_connections=7".to_owned())));
    }

    #[test]
    fn files_of_the_host_are_not_the_owners() {
        for line in [
            "general_log_file=/tmp/log",
            "slow-query-log-file = ../../../x",
            "innodb_log_group_home_dir=logs",
            "innodb-undo-directory=x",
            "plugin_load_add=x",
        ] {
            let given = my_cnf(&format!("[mysqld]\n{line}\n"));
            assert_eq!(given.unwrap_err()[0].field, "my_cnf", "{line}");
        }
        for line in ["default_time_zone='Europe/Berlin'", "general_log_file=log"] {
            assert!(my_cnf(&format!("[mysqld]\n{line}\n")).is_ok(), "{line}");
        }
    }

    #[test]
    fn all_faults_of_a_change_are_told_at_once() {
        let faults = Change::check(ChangeRequest {
            size: Some(r#"{"cpus": 0}"#.to_owned()),
            mem: Some("1mb".to_owned()),
            my_cnf: Some("[mysqld]\nsync_binlog=0".to_owned()),
            package: Some("a b".to_owned()),
            force: Some("yes".to_owned()),
            ..ChangeRequest::default()
        });
        let fields: Vec<String> = faults.unwrap_err().into_iter().map(|it| it.field).collect();
        assert_eq!(fields, ["size", "mem", "my_cnf", "package", "force"]);
    }
}
