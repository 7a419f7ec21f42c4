//! What a cluster is to be: the parameters of a creation, read once at the door.
//!
//! [`CreateRequest`] is what came in, as text; [`ClusterSpec`] is what is behind the door and has nothing
//! left to doubt. Checking tells every fault at once, so that nobody has to try as often as there are
//! mistakes.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    backup_rules::{BackupKeep, BackupSchedule},
    change::{read_my_cnf, read_package},
    configuration::{Configuration, DEFAULT_PACKAGE, Package},
    id::ClusterName,
    size::Size,
    user_name::{UserName, UserNameFault},
    voters::Durability,
};
use crate::{mysql::mycnf, secret::Secret};

/// The parameters of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: ClusterName,
    /// The account that the cluster's owner logs in with.
    pub user: UserName,
    /// How many members it has: 1 to [`MAX_NODES`].
    pub num_nodes: u32,
    /// The resources of each member.
    pub size: Size,
    /// What an acknowledged write is worth.
    pub durability: Durability,
    /// How long an agent may be away before its member is replaced; what the scheduler is started with, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<ReplaceAfter>,
    /// When backups are made without being asked for; what the scheduler is started with, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_schedule: Option<BackupSchedule>,
    /// Which backups are kept; what the scheduler is started with, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_keep: Option<BackupKeep>,
    /// The owner's settings, in the form of `my.cnf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub my_cnf: Option<String>,
    /// The package with the server, if one of several was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
}

/// How long an agent may be away before its member is replaced, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplaceAfter(u64);

impl ReplaceAfter {
    /// The shortest and the longest. An agent that restarts, or whose host does, must have the time to come back.
    pub const RANGE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30 * 86_400)];

    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for ReplaceAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let [min, max] = Self::RANGE;
        let time = humantime::parse_duration(text).ok();
        let time = time.filter(|time| (min..=max).contains(time));
        time.map(|time| Self(time.as_secs())).ok_or_else(|| {
            format!(
                "replace_after must be a time from 10s to 30d, such as 15m, not {:?}",
                shortened(text)
            )
        })
    }
}

impl fmt::Display for ReplaceAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.duration()).fmt(f)
    }
}

/// The most members of a cluster. The master sends its binary log to each of the others, so its network
/// bounds their number; ten times as many slaves would ask for slaves of slaves, which Cotton does not build.
pub const MAX_NODES: u32 = 15;

/// How many members a cluster has when nothing is said.
pub const DEFAULT_NODES: u32 = 3;

/// The longest password that can be given, in characters. MySQL's `caching_sha2_password` takes up to 255
/// (MySQL manual, "Caching SHA-2 Pluggable Authentication").
pub const MAX_PASSWORD_LENGTH: usize = 128;

/// A creation as it was asked for. `None` means "not given".
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// The name in the path.
    pub name: String,
    /// `cluster_user`
    pub cluster_user: Option<String>,
    /// `num_nodes`
    pub num_nodes: Option<String>,
    /// `size`
    pub size: Option<String>,
    /// `durability`
    pub durability: Option<String>,
    /// `backup_schedule`
    pub backup_schedule: Option<String>,
    /// `backup_keep`
    pub backup_keep: Option<String>,
    /// `replace_after`
    pub replace_after: Option<String>,
    /// `my_cnf`
    pub my_cnf: Option<String>,
    /// `package`
    pub package: Option<String>,
    /// `cluster_password`
    pub cluster_password: Option<Secret>,
}

/// What this installation adds to the rules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The account of `--admin-keypath`, which no cluster's user can have.
    pub admin_user: String,
    /// The packages that clusters can choose.
    pub packages: Vec<Package>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The parameter.
    pub field: String,
    /// What is wrong with it and what would be right, as a sentence.
    pub detail: String,
}

impl Fault {
    /// A fault of a parameter.
    pub fn new(field: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            detail: detail.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ClusterSpec {
    /// How the members' servers are to be.
    pub fn configuration(&self) -> Configuration {
        Configuration {
            size: self.size,
            my_cnf: self.my_cnf.clone(),
            package: self.package.clone(),
        }
    }

    /// Wants members' servers to be so.
    pub fn configure(&mut self, configuration: Configuration) {
        let Configuration {
            size,
            my_cnf,
            package,
        } = configuration;
        self.size = size;
        self.my_cnf = my_cnf;
        self.package = package;
    }

    /// Reads a request. The password, if one was given, comes back checked beside the parameters: it is kept
    /// apart from them because they are stored and shown, and it is not.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(
        request: CreateRequest,
        rules: &Rules,
    ) -> Result<(Self, Option<Secret>), Vec<Fault>> {
        let CreateRequest {
            name,
            cluster_user,
            num_nodes,
            size,
            durability,
            backup_schedule,
            backup_keep,
            replace_after,
            my_cnf,
            package,
            cluster_password,
        } = request;
        let mut faults = Vec::new();
        let name = note(name.parse::<ClusterName>(), "name", &mut faults);
        let user = note(read_user(cluster_user, rules), "cluster_user", &mut faults);
        let num_nodes = note(read_num_nodes(num_nodes), "num_nodes", &mut faults);
        let size = match size.as_deref().map_or(Ok(Size::DEFAULT), Size::parse) {
            Ok(size) => Some(size),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| Fault::new("size", fault)));
                None
            }
        };
        let durability = note(read_durability(durability), "durability", &mut faults);
        let schedule = note(
            read_schedule(backup_schedule),
            "backup_schedule",
            &mut faults,
        );
        let keep = note(read_keep(backup_keep), "backup_keep", &mut faults);
        let password = note(
            read_password(cluster_password),
            "cluster_password",
            &mut faults,
        );
        let replace_after = replace_after.map(|text| text.parse::<ReplaceAfter>());
        let replace_after = note(replace_after.transpose(), "replace_after", &mut faults);
        let servers = read_servers(my_cnf, package, rules, &mut faults);
        let others = (schedule.zip(keep), replace_after, servers);
        match (name, user, num_nodes, size, durability, others, password) {
            (
                Some(name),
                Some(user),
                Some(num_nodes),
                Some(size),
                Some(durability),
                (
                    Some((backup_schedule, backup_keep)),
                    Some(replace_after),
                    Some((my_cnf, package)),
                ),
                Some(password),
            ) if faults.is_empty() => {
                let durability = durability.unwrap_or(Durability::default_for(num_nodes));
                Ok((
                    Self {
                        name,
                        user,
                        num_nodes,
                        size,
                        durability,
                        replace_after,
                        backup_schedule,
                        backup_keep,
                        my_cnf,
                        package,
                    },
                    password,
                ))
            }
            _ => Err(faults),
        }
    }
}

pub(super) fn note<T, E: fmt::Display>(
    result: Result<T, E>,
    field: &str,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    result
        .map_err(|error| faults.push(Fault::new(field, error)))
        .ok()
}

fn read_user(text: Option<String>, rules: &Rules) -> Result<UserName, String> {
    let text = text.ok_or(
        "cluster_user is missing: give the name of the account that is to be made in the cluster",
    )?;
    let user: UserName = text
        .parse()
        .map_err(|fault: UserNameFault| fault.to_string())?;
    if user.as_str().eq_ignore_ascii_case(&rules.admin_user) {
        return Err(UserNameFault::Reserved(text).to_string());
    }
    Ok(user)
}

/// The owner's settings and the package.
fn read_servers(
    my_cnf: Option<String>,
    package: Option<String>,
    rules: &Rules,
    faults: &mut Vec<Fault>,
) -> Option<(Option<String>, Option<Package>)> {
    let my_cnf = note(read_my_cnf(my_cnf), "my_cnf", faults);
    let named = read_package(package).and_then(|name| {
        let name = name.as_deref().unwrap_or(DEFAULT_PACKAGE);
        Package::named(&rules.packages, name, None)
    });
    let package = note(named, "package", faults);
    let (my_cnf, package) = (my_cnf?.flatten(), package?);
    if let (Some(text), Some(package)) = (&my_cnf, &package)
        && let Err(refused) = mycnf::check_user_defaults(package.server.flavour, text)
    {
        faults.push(Fault::new(
            "my_cnf",
            format!("my_cnf is refused: {refused}"),
        ));
    }
    Some((my_cnf, package))
}

fn read_num_nodes(text: Option<String>) -> Result<u32, String> {
    text.map_or(Ok(DEFAULT_NODES), |text| parse_num_nodes(&text))
}

/// Reads a number of members.
///
/// # Errors
/// What would be right, as a sentence.
pub fn parse_num_nodes(text: &str) -> Result<u32, String> {
    let number = text
        .parse::<u32>()
        .ok()
        .filter(|n| (1..=MAX_NODES).contains(n));
    number.ok_or_else(|| {
        format!(
            "num_nodes must be a whole number from 1 to {MAX_NODES}, not {:?}",
            shortened(text)
        )
    })
}

pub(super) fn read_durability(text: Option<String>) -> Result<Option<Durability>, String> {
    match text.as_deref() {
        None => Ok(None),
        Some("majority") => Ok(Some(Durability::Majority)),
        Some("async") => Ok(Some(Durability::Async)),
        Some(other) => Err(format!(
            "durability must be majority or async, not {:?}",
            shortened(other)
        )),
    }
}

pub(super) fn read_schedule(text: Option<String>) -> Result<Option<BackupSchedule>, String> {
    let schedule = text.map(|text| text.parse()).transpose();
    schedule.map_err(|fault: String| format!("backup_schedule: {fault}"))
}

pub(super) fn read_keep(text: Option<String>) -> Result<Option<BackupKeep>, String> {
    let keep = text.map(|text| text.parse()).transpose();
    keep.map_err(|fault: String| format!("backup_keep: {fault}"))
}

fn read_password(password: Option<Secret>) -> Result<Option<Secret>, String> {
    let Some(password) = password else {
        return Ok(None);
    };
    // The sentences never repeat the password.
    if password.expose().chars().count() > MAX_PASSWORD_LENGTH {
        return Err(format!(
            "cluster_password must have at most {MAX_PASSWORD_LENGTH} characters"
        ));
    }
    if password.expose().chars().any(char::is_control) {
        return Err(
            "cluster_password must not contain control characters such as line ends, tabs or NUL"
                .to_owned(),
        );
    }
    Ok(Some(password))
}

/// A text from outside in a sentence of ours: not longer than a sentence should be.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::cluster::{
        control::{Installer, ServerKind},
        flavour::{Flavour, ServerVersion},
    };

    fn request() -> CreateRequest {
        CreateRequest {
            name: "orders".to_owned(),
            cluster_user: Some("mysos".to_owned()),
            ..CreateRequest::default()
        }
    }

    fn check(request: CreateRequest) -> Result<(ClusterSpec, Option<Secret>), Vec<Fault>> {
        ClusterSpec::check(
            request,
            &Rules {
                admin_user: "admin".to_owned(),
                packages: vec![later()],
            },
        )
    }

    fn later() -> Package {
        Package {
            name: "later".to_owned(),
            installer: Installer::Search,
            server: ServerKind {
                flavour: Flavour::Mariadb,
                version: ServerVersion::new(11, 8, 6),
            },
        }
    }

    /// Goal: settings and package can be given with the creation, and are refused as at a change.
    #[test]
    fn settings_and_package_are_chosen_at_the_creation() {
        let with = |my_cnf: &str, package: &str| CreateRequest {
            my_cnf: Some(my_cnf.to_owned()),
            package: Some(package.to_owned()),
            replace_after: Some("1h".to_owned()),
            ..request()
        };
        let text = "[mysqld]\nmax_connections=7\n";
        let (spec, _) = check(with(text, "later")).unwrap();
        assert_eq!(spec.package, Some(later()));
        assert_eq!(spec.my_cnf.as_deref(), Some(text));
        assert_eq!(spec.replace_after.unwrap().duration().as_secs(), 3600);
        let (spec, _) = check(with("# none", "default")).unwrap();
        assert_eq!((spec.package, spec.my_cnf), (None, None));
        let faults = check(with("[mysqld]\nsync_binlog=0", "sooner")).unwrap_err();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["my_cnf", "package"]);
        assert_eq!(
            faults[1].detail,
            "there is no package sooner; there are later"
        );
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let (spec, password) = check(request()).unwrap();
        assert_eq!((spec.num_nodes, spec.size), (3, Size::DEFAULT));
        assert_eq!(spec.durability, Durability::Majority);
        assert_eq!(password, None);
        let two = CreateRequest {
            num_nodes: Some("2".to_owned()),
            ..request()
        };
        assert_eq!(check(two).unwrap().0.durability, Durability::Async);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = check(CreateRequest {
            name: "-".to_owned(),
            cluster_user: None,
            num_nodes: Some("0".to_owned()),
            size: Some(r#"{"cpus": 0, "mem": 1}"#.to_owned()),
            durability: Some("best".to_owned()),
            backup_schedule: Some("daily".to_owned()),
            backup_keep: Some("0".to_owned()),
            replace_after: Some("soon".to_owned()),
            my_cnf: Some("\0".to_owned()),
            package: Some("/".to_owned()),
            cluster_password: Some(Secret::new("\0")),
        })
        .unwrap_err();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "name",
                "cluster_user",
                "num_nodes",
                "size",
                "size",
                "durability",
                "backup_schedule",
                "backup_keep",
                "cluster_password",
                "replace_after",
                "my_cnf",
                "package"
            ]
        );
    }

    #[test]
    fn accounts_of_the_servers_and_of_cotton_are_reserved() {
        for user in [
            "root",
            "ROOT",
            "mysql",
            "mysql.sys",
            "mariadb.sys",
            "PUBLIC",
            "Admin",
            "cotton_1",
        ] {
            let faults = check(CreateRequest {
                cluster_user: Some(user.to_owned()),
                ..request()
            })
            .unwrap_err();
            assert!(
                faults[0].detail.contains("has for itself"),
                "{user}: {}",
                faults[0]
            );
        }
        for user in ["mysos", "a", "rooter", "o.k-_@+%", &"x".repeat(32)] {
            assert!(user.parse::<UserName>().is_ok(), "{user}");
        }
    }

    #[test]
    fn what_is_stored_reads_the_same() {
        let (spec, _) = check(request()).unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(
            text,
            r#"{"name":"orders","user":"mysos","num_nodes":3,"size":{"cpus":1.0,"mem":"512mb","disk":"2gb"},"durability":"majority"}"#
        );
        assert_eq!(serde_json::from_str::<ClusterSpec>(&text).unwrap(), spec);
    }
}
