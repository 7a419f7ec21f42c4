//! Removing backups from the store, and what is left of unfinished ones.
//!
//! The manifest goes first: what stops after that leaves files without one, which are no backup. Only files that the layout names
//! are removed, and a folder only when nothing else is in it.

use opendal::ErrorKind;

use super::{
    manifest,
    store::{Listed, Store, StoreError, file_of},
    verified,
};
use crate::cluster::{backup::BackupId, id::ClusterName};

/// How often the removal of an empty folder is tried. Whoever writes into it does so once.
const FOLDER_TRIES: usize = 3;

/// What the store has of a cluster.
#[derive(Debug, Default)]
pub struct Survey {
    /// The complete backups, oldest first, damaged ones included.
    pub complete: Vec<Listed>,
    /// Folders without a manifest, with ids such as Cotton gives: backups that are being made, were not completed, or were removed by
    /// halves.
    pub unfinished: Vec<BackupId>,
}

impl Store {
    /// The names of the clusters of which the store may have backups.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn clusters(&self) -> Result<Vec<ClusterName>, StoreError> {
        let folders = self.entries("/").await?;
        let names = folders
            .iter()
            .filter_map(|path| path.strip_suffix('/')?.parse().ok());
        Ok(names.collect())
    }

    /// Whether it has nothing at all. S3 has no folders that stay when the last file is removed, and nothing that could be mounted in its
    /// place: a bucket is there or is not.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(!self.is_s3() && self.entries("/").await?.is_empty())
    }

    /// Removes a backup, or what is left of one. One that is not there is removed already.
    ///
    /// # Errors
    /// When the store refuses or does not answer. What was not removed then is no backup any more if the manifest is gone.
    pub async fn remove(&self, id: &BackupId) -> Result<(), StoreError> {
        self.remove_file(id, manifest::FILE).await?;
        self.remove_file(id, manifest::DATA_FILE).await?;
        self.remove_file(id, verified::FILE).await?;
        self.remove_empty_folder(id).await
    }

    /// Removes the folder of a backup that was removed. What somebody has written into it meanwhile is removed by them, and the folder with
    /// it; they may have come and gone between the look at it and its removal.
    pub(super) async fn remove_empty_folder(&self, id: &BackupId) -> Result<(), StoreError> {
        let folder = format!("{id}/");
        for tries_left in (0..FOLDER_TRIES).rev() {
            if !self.entries(&folder).await?.is_empty() {
                break;
            }
            // Where folders are no more than the beginnings of names, there is none left.
            match self.writing.delete(&folder).await {
                Ok(()) => break,
                Err(error) if tries_left == 0 => {
                    return Err(self.failed("remove the folder of a backup", error));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn remove_file(&self, id: &BackupId, name: &str) -> Result<(), StoreError> {
        match self.writing.delete(&file_of(id, name)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.failed("remove a file of a backup", error))
            }
            _ => Ok(()),
        }
    }

    /// What is in a folder, itself left out. Nothing is in one that is not there.
    pub(super) async fn entries(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let entries = match self.reading.list(folder).await {
            Ok(entries) => entries,
            Err(error) if self.has_no_such_folder(&error) => Vec::new(),
            Err(error) => return Err(self.failed("list its backups", error)),
        };
        let paths = entries.into_iter().map(|entry| entry.path().to_owned());
        Ok(paths.filter(|path| path != folder).collect())
    }
}
