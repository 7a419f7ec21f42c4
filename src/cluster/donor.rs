//! Copying a member's data from another one: what is asked for, and what is named in answer.
//!
//! A member that holds nothing says so in its report ([`WantsDonor`]); the scheduler chooses a healthy member
//! and stores the choice ([`Chosen`]); the goal that follows from the record tells where that one is found
//! ([`Donor`]).

use serde::{Deserialize, Serialize};

use super::id::{DataId, MemberId};

/// A member holds no transaction at all and gets the cluster's data from a donor as soon as one is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantsDonor {
    /// How many copies have failed in a row. Each failure asks for another donor.
    pub failed: u32,
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
}
