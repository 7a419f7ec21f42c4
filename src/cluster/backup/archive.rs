//! The words of archiving the binlogs: what a master is told of it, and what it says.

use serde::{Deserialize, Serialize};

use super::BackupStore;
use crate::time::Timestamp;

/// What the master of an epoch is told of archiving its binlogs: that it is to, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveOrder {
    /// Where they go.
    pub store: BackupStore,
    /// Whether something was archived there. Then nobody begins anew where nothing is found: what is in the store's place is another one, or
    /// nothing is mounted there.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub begun: bool,
}

impl ArchiveOrder {
    /// An order to archive there, where nothing is known of before.
    pub fn new(store: BackupStore) -> Self {
        Self {
            store,
            begun: false,
        }
    }

    /// The order when the store's settings are these. What was begun is where it was as long as the store's URL is the same.
    pub fn with(&self, store: &BackupStore) -> Self {
        Self {
            store: store.clone(),
            begun: self.begun && self.store.url == store.url,
        }
    }
}

/// What a master says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// Everything that was committed before this moment is archived. It is told every half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why nothing is archived at the moment, as a sentence; or what will be missing in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The URL of the store that has something of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_in: Option<String>,
}
