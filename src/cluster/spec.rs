//! What a cluster is to be: the parameters of a creation, read once at the door.
//!
//! [`CreateRequest`] is what came in, as text; [`ClusterSpec`] is what is behind the door and has nothing
//! left to doubt. Checking tells every fault at once, so that nobody has to try as often as there are
//! mistakes.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{id::ClusterName, size::Size, voters::Durability};
use crate::secret::Secret;

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
    /// `cluster_password`
    pub cluster_password: Option<Secret>,
}

/// Other settings for a cluster that is there. `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What an acknowledged write is to be worth. A cluster of one node may be `majority` too: it makes no difference before
    /// it has more.
    pub durability: Option<Durability>,
    /// How long an agent may be away before its member is replaced.
    pub replace_after: Option<ReplaceAfter>,
}

/// A change as it was asked for. `None` means "not given".
#[derive(Debug, Clone, Default)]
pub struct ChangeRequest {
    /// `durability`
    pub durability: Option<String>,
    /// `replace_after`
    pub replace_after: Option<String>,
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

impl Change {
    /// Reads a request.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(request: ChangeRequest) -> Result<Self, Vec<Fault>> {
        let ChangeRequest {
            durability,
            replace_after,
        } = request;
        let mut faults = Vec::new();
        let durability = note(read_durability(durability), "durability", &mut faults);
        let replace_after = replace_after.map(|text| text.parse::<ReplaceAfter>());
        let replace_after = note(replace_after.transpose(), "replace_after", &mut faults);
        match (durability, replace_after) {
            (Some(durability), Some(replace_after)) if faults.is_empty() => {
                let change = Self {
                    durability,
                    replace_after,
                };
                if change == Self::default() {
                    return Err(vec![Fault::new("durability", NOTHING_TO_CHANGE)]);
                }
                Ok(change)
            }
            _ => Err(faults),
        }
    }

    /// Puts the settings into `spec`. Gives those that had another value.
    pub fn apply(&self, spec: &mut ClusterSpec) -> Vec<Changed> {
        let Self {
            durability,
            replace_after,
        } = self;
        let mut changed = Vec::new();
        if let Some(to) = durability.filter(|to| *to != spec.durability) {
            changed.push(Changed {
                field: "durability".to_owned(),
                from: spec.durability.to_string(),
                to: to.to_string(),
            });
            spec.durability = to;
        }
        if let Some(to) = replace_after.filter(|to| Some(*to) != spec.replace_after) {
            let from = spec.replace_after;
            changed.push(Changed {
                field: "replace_after".to_owned(),
                from: from.map_or("as --replace-after says".to_owned(), |from| {
                    from.to_string()
                }),
                to: to.to_string(),
            });
            spec.replace_after = Some(to);
        }
        changed
    }
}

const NOTHING_TO_CHANGE: &str = "nothing is given that is to be changed; give replace_after=TIME, durability=majority or durability=async";

/// What this installation adds to the rules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The account of `--admin-keypath`, which no cluster's user can have.
    pub admin_user: String,
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
        let password = note(
            read_password(cluster_password),
            "cluster_password",
            &mut faults,
        );
        match (name, user, num_nodes, size, durability, password) {
            (
                Some(name),
                Some(user),
                Some(num_nodes),
                Some(size),
                Some(durability),
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
                        replace_after: None,
                    },
                    password,
                ))
            }
            _ => Err(faults),
        }
    }
}

fn note<T, E: fmt::Display>(
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

fn read_durability(text: Option<String>) -> Result<Option<Durability>, String> {
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
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The name of a cluster's user: 1 to 32 printable ASCII characters without spaces, quotes and backslashes,
/// and no account that the servers or Cotton have for themselves.
///
/// 32 is MySQL's limit (MySQL manual, "Account User Names and Passwords").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Why a text cannot be the name of a cluster's user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserNameFault {
    /// Too long, empty, or with characters that are not allowed.
    #[error(
        "cluster_user must be 1 to 32 printable ASCII characters without spaces, quotes and backslashes, not {0:?}"
    )]
    Malformed(String),
    /// The name of an account that the server or Cotton needs.
    #[error(
        "cluster_user {0:?} is the name of an account that the server or Cotton has for itself; take another name"
    )]
    Reserved(String),
}

impl UserName {
    const MAX_LENGTH: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Accounts of the servers (`root`, `mysql`, `mysql.sys`, `mariadb.sys`, ...), MariaDB's role of everybody,
    /// the reserved words by which both name the account itself, and Cotton's own accounts.
    fn is_reserved(text: &str) -> bool {
        let lower = text.to_ascii_lowercase();
        [
            "root",
            "mysql",
            "mariadb",
            "public",
            "current_user",
            "current_role",
            "none",
        ]
        .contains(&lower.as_str())
            || ["mysql.", "mariadb.", "cotton"]
                .iter()
                .any(|prefix| lower.starts_with(prefix))
    }
}

impl FromStr for UserName {
    type Err = UserNameFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '`' | '\\');
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.chars().all(allowed) {
            return Err(UserNameFault::Malformed(shortened(text)));
        }
        if Self::is_reserved(text) {
            return Err(UserNameFault::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UserName {
    type Error = UserNameFault;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(user: UserName) -> Self {
        user.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

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
            },
        )
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
                "cluster_password"
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
