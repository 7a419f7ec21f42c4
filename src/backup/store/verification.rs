//! What was found when backups were verified, in the store, and whether a backup's data is what was stored.

use futures::TryStreamExt as _;
use opendal::ErrorKind;
use sha2::{Digest as _, Sha256};

use super::{READ_PIECE, Store, StoreError, damaged, file_of};
use crate::{
    backup::{
        manifest::{MOST_BYTES, Manifest, Object},
        verified::{self, Document, Verified},
    },
    cluster::backup::BackupId,
};

impl Store {
    /// Reads what was found when the backup that lies at `id` was verified; `None` if that was not done, or the document cannot be used.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn verified(
        &self,
        id: &BackupId,
        manifest: &Manifest,
    ) -> Result<Option<Verified>, StoreError> {
        let text = self.text(&file_of(id, verified::FILE), MOST_BYTES).await;
        match text {
            Ok(text) => Ok(Verified::of(manifest, &text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read what a verification has found", error)),
        }
    }

    /// Whether the backup that lies at `id` is still the one that the manifest describes.
    ///
    /// # Errors
    /// When the store does not answer, or the manifest cannot be used any more.
    pub async fn has(&self, id: &BackupId, manifest: &Manifest) -> Result<bool, StoreError> {
        match self.manifest(id).await {
            Ok(now) => Ok(now == *manifest),
            Err(StoreError::Unknown(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores what was found. What was found before is replaced; whoever is cut off in between leaves a backup that counts as not verified. Tells whether the
    /// backup is still there: nothing stays of what was found in one that was removed.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn note_verified(
        &self,
        id: &BackupId,
        manifest: &Manifest,
        found: &Document,
    ) -> Result<bool, StoreError> {
        if !self.has(id, manifest).await? {
            return Ok(false);
        }
        self.remove_file(id, verified::FILE).await?;
        let path = file_of(id, verified::FILE);
        let written = self.writing.write(&path, found.to_json()).await;
        // Whoever removes a backup begins with the manifest. So either that is gone by now, or what was written here is found by them. Whoever is cut off
        // in between leaves a folder without a manifest, which is no backup and goes when it is a week old.
        if !self.has(id, manifest).await? {
            self.remove_file(id, verified::FILE).await?;
            self.remove_empty_folder(id).await?;
            return Ok(false);
        }
        written.map_err(|error| self.failed("take what a verification has found", error))?;
        Ok(true)
    }

    /// Reads a file of the backup that lies at `id`, and compares it with the manifest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it is missing or not what was stored; another one when the store does not answer.
    pub async fn compare_with(&self, id: &BackupId, object: &Object) -> Result<(), StoreError> {
        let path = file_of(id, &object.name);
        let missing = |error: opendal::Error| match error.kind() {
            ErrorKind::NotFound => damaged(id, &object.name, "is missing".to_owned()),
            _ => self.failed("read a backup's data", error),
        };
        let found = self.reading.stat(&path).await.map_err(missing)?;
        let length = found.content_length();
        if length != object.bytes {
            let stored = object.bytes;
            let how = format!("has {length} bytes, and {stored} were stored");
            return Err(damaged(id, &object.name, how));
        }
        let reader = self.reading.reader_with(&path).chunk(READ_PIECE as usize);
        let reader = reader.await.map_err(missing)?;
        let stream = reader.into_stream(0..length).await.map_err(missing)?;
        let mut stream = Box::pin(stream);
        let mut digest = Sha256::new();
        while let Some(buffer) = stream.try_next().await.map_err(missing)? {
            for bytes in buffer {
                digest.update(&bytes);
            }
        }
        if hex::encode(digest.finalize()) != object.sha256 {
            let how = "has another checksum than what was stored";
            return Err(damaged(id, &object.name, how.to_owned()));
        }
        Ok(())
    }
}
