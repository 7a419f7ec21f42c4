//! Getting a member's data from another one or from a backup: what is asked for, and what is named in answer.
//!
//! A member that holds nothing says so in its report ([`WantsDonor`]); the scheduler chooses a healthy member
//! and stores the choice ([`Chosen`]); the goal that follows from the record tells where that one is found
//! ([`Donor`]). Where no member can give its data, a backup of the cluster takes its place ([`FromBackup`]).

use serde::{Deserialize, Serialize};

use super::{
    backup::{BackupId, RestoreFrom},
    gtid::Position,
    id::{DataId, MemberId},
};

/// After so many copies from donors that failed one after the other a member gets the data of a backup instead, if there is one.
pub const COPIES_IN_A_ROW: u32 = 3;

/// How many complete backups a record knows well enough to give their data to members. The newest is the one to take; the others are for when that one is
/// of no use.
pub const MOST_USABLE: usize = 3;

/// A member holds no transaction at all and gets the cluster's data from a donor as soon as one is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantsDonor {
    /// How many copies have failed in a row. Each failure asks for another donor.
    pub failed: u32,
    /// Whether a backup will do as well: [`COPIES_IN_A_ROW`] copies have failed, or no donor was named for a while.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub backup: bool,
    /// A backup that this member has tried and that is of no use to anybody, so that it is not to be named again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<BackupId>,
}

/// The donor of a member, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The empty data directory that the copy replaces. A member with another one is not meant.
    pub instead_of: DataId,
    /// The donor.
    pub member: MemberId,
    /// [`WantsDonor::failed`] at the time of the choice.
    pub failed: u32,
    /// Where the donor's executor hands its data out; see [`Donor::stream_port`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_port: Option<u16>,
    /// See [`Donor::busy`].
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub busy: bool,
}

/// Where a member copies the cluster's data from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Donor {
    /// See [`Chosen::instead_of`].
    pub instead_of: DataId,
    /// Who it is.
    pub member: MemberId,
    /// The donor's host.
    pub host: String,
    /// The port of the donor's server.
    pub port: u16,
    /// The port at which the donor's executor hands out a stream of its data. MySQL's servers copy from each
    /// other and need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_port: Option<u16>,
    /// Whether it gives its data to another member at the moment. One gives to one at a time (MySQL Reference Manual, "Clone Plugin
    /// Limitations"), so this member waits for its turn.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub busy: bool,
}

/// A backup of the cluster whose data a member gets because no other member can give its own; as stored, and as the goal tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromBackup {
    /// See [`Chosen::instead_of`].
    pub instead_of: DataId,
    /// Which one, and where it is.
    #[serde(flatten)]
    pub from: RestoreFrom,
}

/// A complete backup of the cluster, with what must be known of it before a member gets its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsableBackup {
    /// Which one, and where it is.
    #[serde(flatten)]
    pub from: RestoreFrom,
    /// What it holds at the least.
    pub position: Position,
}
