//! Names and numbers by which clusters, members and their incarnations are told apart.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of a cluster: 1 to 64 of letters, digits, `_` and `-`, starting with a letter or digit.
///
/// It stands in URLs, ZooKeeper paths and Mesos ids as it is, which is why nothing else is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// Why a text is no cluster name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster name {0:?} is not valid: use 1 to 64 letters, digits, '_' and '-', starting with a letter or digit"
)]
pub struct InvalidClusterName(String);

impl ClusterName {
    /// The longest name, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let all_allowed = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if starts_well && all_allowed && text.len() <= Self::MAX_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            // The text may be of any length; the sentence must not be.
            Err(InvalidClusterName(
                text.chars().take(Self::MAX_LENGTH + 1).collect(),
            ))
        }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidClusterName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A member of a cluster, counted from 0. A member keeps its number when its task is launched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u32);

impl MemberId {
    /// The member's number as clients see it, in service discovery and the API: from 1 on. The `server_id` of its
    /// MySQL server is another one, which changes with its data directory.
    pub const fn server_id(self) -> u32 {
        self.0 + 1
    }

    /// The name of the member's node in service discovery, such as `member_0000000003`.
    pub fn node_name(self) -> String {
        format!("member_{:010}", self.0)
    }

    /// The member that a discovery node belongs to, or `None` for a name of another form.
    pub fn from_node_name(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("member_")?;
        (digits.len() == 10).then(|| digits.parse().ok().map(Self))?
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Counts the masters of a cluster. It grows with every change of master and is stored before
/// anything acts on it. Epoch 0 is the time before the first master.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One launch of a member, as Mesos knows it: `<cluster>.<first digits of its uuid>.<member>.<launch>`. Where `verify` stands in the place of the member, the task
/// verifies a backup of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(String);

impl TaskId {
    /// The id of a member's `launch`-th task.
    pub fn new(cluster: &ClusterName, uuid: Uuid, member: MemberId, launch: u32) -> Self {
        Self(format!("{cluster}.{}.{member}.{launch}", incarnation(uuid)))
    }

    /// The id of the `launch`-th task that verifies a backup of the cluster.
    pub fn of_verification(cluster: &ClusterName, uuid: Uuid, launch: u32) -> Self {
        let incarnation = incarnation(uuid);
        Self(format!("{cluster}.{incarnation}.{VERIFIES}.{launch}"))
    }

    /// Takes over an id that Mesos or ZooKeeper named; it may be of a foreign form.
    pub fn from_wire(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The cluster's name in the id, if the id has the form that Cotton gives.
    pub fn cluster(&self) -> Option<ClusterName> {
        Some(self.parts()?.cluster)
    }

    /// What the id says, if it has the form that Cotton gives.
    pub fn parts(&self) -> Option<TaskParts> {
        let parts: Vec<&str> = self.0.split('.').collect();
        let [cluster, incarnation, runs, launch] = parts[..] else {
            return None;
        };
        Some(TaskParts {
            cluster: cluster.parse().ok()?,
            incarnation: incarnation.to_owned(),
            runs: match runs {
                VERIFIES => Runs::Verification,
                member => Runs::Member(MemberId(member.parse().ok()?)),
            },
            launch: launch.parse().ok()?,
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands in the place of the member in the id of a task that verifies a backup.
const VERIFIES: &str = "verify";

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// It is this member's.
    Member(MemberId),
    /// It verifies a backup.
    Verification,
}

/// What a [`TaskId`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskParts {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The first digits of its incarnation.
    incarnation: String,
    /// What it runs.
    pub runs: Runs,
    /// Which launch of that it is, counted from 1.
    pub launch: u32,
}

impl TaskParts {
    /// The member, if it is a member's.
    pub fn member(&self) -> Option<MemberId> {
        match self.runs {
            Runs::Member(member) => Some(member),
            Runs::Verification => None,
        }
    }

    /// Whether the task belongs to the incarnation of this uuid.
    pub fn is_of(&self, uuid: Uuid) -> bool {
        self.incarnation == incarnation(uuid)
    }
}

/// The first digits of a cluster's uuid. They tell the incarnations of one name apart, of which there are few.
fn incarnation(uuid: Uuid) -> String {
    let mut digits = uuid.simple().to_string();
    digits.truncate(8);
    digits
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One incarnation of a data directory: made new whenever a directory is initialised, cloned,
/// restored or otherwise loses what it may have acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataId(pub Uuid);

/// One run of a mysqld process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub Uuid);

impl DataId {
    /// The `server_id` of the MySQL server that a member runs on this data directory.
    ///
    /// It must differ between the members of a cluster, and also between the data directories that one member
    /// has had: a replica passes over all transactions that carry its own id, and calls them executed (tried on
    /// both flavours; MySQL manual, `--replicate-same-server-id`, which MariaDB refuses beside
    /// `log_slave_updates`). A member with a new, empty directory would silently lack whatever it had written
    /// itself while it was master.
    ///
    /// The lowest 8 bits are the member's number, the others come from the directory's random identity: two
    /// directories of one member get the same id with a probability of one in 16 million.
    pub fn server_id(self, member: MemberId) -> u32 {
        let [a, b, c, ..] = *self.0.as_bytes();
        // 0 would mean that the server does not replicate.
        u32::from_be_bytes([a, b, c, member.server_id() as u8]).max(1)
    }
}

impl fmt::Display for DataId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn cluster_names() {
        for good in ["a", "0", "orders", "Test_cluster-3", &"x".repeat(64)] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a.b",
            "a/b",
            "ä",
            "a b",
            "..",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn discovery_nodes_are_those_of_the_original() {
        assert_eq!(MemberId(1).node_name(), "member_0000000001");
        assert_eq!(
            MemberId::from_node_name("member_0000000012"),
            Some(MemberId(12))
        );
        for other in ["member_1", "member_00000000xx", "0000000001", ""] {
            assert_eq!(MemberId::from_node_name(other), None, "{other}");
        }
    }

    #[test]
    fn server_ids_differ_between_members_and_between_data_directories() {
        let data = |n: u128| DataId(Uuid::from_u128(n << 104));
        let ids = [(0, 1), (1, 1), (0, 2), (14, 2)].map(|(m, d)| data(d).server_id(MemberId(m)));
        assert_eq!(ids, [0x101, 0x102, 0x201, 0x20f]);
        assert_eq!(data(0).server_id(MemberId(255)), 1);
    }

    #[test]
    fn task_ids_name_their_cluster() {
        let name: ClusterName = "a-b_c".parse().unwrap();
        let task = TaskId::new(&name, Uuid::nil(), MemberId(2), 7);
        assert_eq!(task.as_str(), "a-b_c.00000000.2.7");
        assert_eq!(task.cluster(), Some(name));
        let parts = task.parts().unwrap();
        assert_eq!((parts.runs, parts.launch), (Runs::Member(MemberId(2)), 7));
        assert!(parts.is_of(Uuid::nil()) && !parts.is_of(Uuid::max()));
        let cluster: ClusterName = "a-b_c".parse().unwrap();
        let task = TaskId::of_verification(&cluster, Uuid::nil(), 3);
        assert_eq!(task.as_str(), "a-b_c.00000000.verify.3");
        let parts = task.parts().unwrap();
        assert_eq!((parts.runs, parts.launch), (Runs::Verification, 3));
        for foreign in [
            "never-existed",
            "a.b.c",
            "a.00000000.x.1",
            "a.00000000.1.2.3",
        ] {
            assert_eq!(TaskId::from_wire(foreign).cluster(), None, "{foreign}");
        }
    }
}
