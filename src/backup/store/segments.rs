//! Archived binlogs in the store: one folder for each epoch of a cluster's incarnation, with the segments' data and documents.

use opendal::ErrorKind;
use uuid::Uuid;

use super::{Pace, Store, StoreError, damaged, file_of};
use crate::{
    backup::{
        archive::{self, Segment},
        manifest::{MOST_BYTES, Object},
        stream::{Packing, Seal, Unpacking},
    },
    cluster::{
        backup::BackupId,
        id::{ClusterName, Epoch},
    },
};

/// Archiving has no limit to its pace but the store's.
struct Unbounded;

impl Pace for Unbounded {
    async fn keep(&mut self, _: u64) {}
}

impl Store {
    /// The last complete segment of a cluster's incarnation, if there is one. A document that was not completed is none, and its number is used
    /// again.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn last_segment(
        &self,
        cluster: &ClusterName,
        uuid: Uuid,
    ) -> Result<Option<Segment>, StoreError> {
        let folder = archive::folder(cluster, uuid);
        let mut epochs = self.epochs_in(&folder).await?;
        while let Some(epoch) = epochs.pop() {
            let mut numbers = self.numbers_in(&folder, epoch).await?;
            while let Some(number) = numbers.pop() {
                match self.segment(cluster, uuid, epoch, number).await {
                    Ok(segment) => return Ok(Some(segment)),
                    Err(StoreError::Manifest { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    /// One segment.
    ///
    /// # Errors
    /// When it is missing or damaged, or the store does not answer.
    pub async fn segment(
        &self,
        cluster: &ClusterName,
        uuid: Uuid,
        epoch: Epoch,
        number: u64,
    ) -> Result<Segment, StoreError> {
        let folder = epoch_folder(cluster, uuid, epoch)?;
        let name = archive::document_name(number);
        let path = file_of(&folder, &name);
        let text = self.text(&path, MOST_BYTES).await;
        let text = text.map_err(|error| match error.kind() {
            ErrorKind::NotFound => damaged(&folder, &name, "is missing".to_owned()),
            _ => self.failed("read archived binlogs", error),
        })?;
        let segment = Segment::from_json(&text).map_err(|source| StoreError::Manifest {
            id: folder.clone(),
            source,
        })?;
        let is_it = (&segment.cluster, segment.uuid) == (cluster, uuid)
            && (segment.epoch, segment.number) == (epoch, number);
        match is_it {
            true => Ok(segment),
            false => Err(damaged(
                &folder,
                &name,
                "describes another segment".to_owned(),
            )),
        }
    }

    /// What the data of a new segment is encrypted with.
    ///
    /// # Errors
    /// Never for names of clusters.
    pub fn seal_for_segment(
        &self,
        cluster: &ClusterName,
        uuid: Uuid,
        epoch: Epoch,
        number: u64,
    ) -> Result<Seal, StoreError> {
        let folder = archive::folder(cluster, uuid);
        let id = archive::seal_id(&folder, epoch, number)?;
        Ok(self.key.clone().map(|key| (key, id)))
    }

    /// Stores the data of a segment.
    ///
    /// # Errors
    /// As for the data of a backup.
    pub async fn put_segment(
        &self,
        cluster: &ClusterName,
        uuid: Uuid,
        epoch: Epoch,
        name: &str,
        packing: Packing,
    ) -> Result<(Object, u64), StoreError> {
        let folder = epoch_folder(cluster, uuid, epoch)?;
        self.put(&folder, name, packing, &mut Unbounded).await
    }

    /// Stores the document that makes a segment of its data.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn complete_segment(&self, segment: &Segment) -> Result<(), StoreError> {
        let folder = epoch_folder(&segment.cluster, segment.uuid, segment.epoch)?;
        let path = file_of(&folder, &archive::document_name(segment.number));
        let written = self.writing.write(&path, segment.to_json()).await;
        written.map_err(|error| self.failed("take archived binlogs", error))?;
        Ok(())
    }

    /// Reads the data of a segment into what unpacks it, which `unpack` begins with what it is decrypted with.
    ///
    /// # Errors
    /// When it is missing, damaged or cut off, the key is missing or another one, or what takes the data does not.
    pub async fn get_segment(
        &self,
        segment: &Segment,
        unpack: impl FnOnce(Seal) -> Result<Unpacking, crate::backup::stream::StreamError>,
    ) -> Result<(), StoreError> {
        let Segment {
            cluster,
            uuid,
            epoch,
            number,
            ..
        } = segment;
        let folder = epoch_folder(cluster, *uuid, *epoch)?;
        let seal = match &segment.key_id {
            None => None,
            Some(key_id) => {
                let own = self.key.as_ref().map(|key| key.id());
                if own.as_ref() != Some(key_id) {
                    return Err(StoreError::Key {
                        id: folder,
                        key_id: key_id.clone(),
                        found: own.map_or_else(
                            || "there is no key here".to_owned(),
                            |own| format!("the key here is {own}"),
                        ),
                    });
                }
                self.seal_for_segment(cluster, *uuid, *epoch, *number)?
            }
        };
        self.get(&folder, &segment.object, unpack(seal)?).await?;
        Ok(())
    }

    pub(super) async fn epochs_in(&self, folder: &str) -> Result<Vec<Epoch>, StoreError> {
        let names = self.names_in(folder).await?;
        let mut epochs: Vec<Epoch> = names
            .iter()
            .filter_map(|name| archive::epoch_of(name))
            .collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    pub(super) async fn numbers_in(
        &self,
        folder: &str,
        epoch: Epoch,
    ) -> Result<Vec<u64>, StoreError> {
        let folder = format!("{folder}/{}", archive::epoch_name(epoch));
        let names = self.names_in(&folder).await?;
        let mut numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| archive::number_of(name))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) async fn names_in(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        match self.reading.list(&format!("{folder}/")).await {
            Ok(entries) => Ok(entries
                .iter()
                .map(|entry| entry.name().to_owned())
                .collect()),
            Err(error) if self.has_no_such_folder(&error) => Ok(Vec::new()),
            Err(error) => Err(self.failed("list archived binlogs", error)),
        }
    }
}

pub(super) fn epoch_folder(
    cluster: &ClusterName,
    uuid: Uuid,
    epoch: Epoch,
) -> Result<BackupId, StoreError> {
    let folder = archive::folder(cluster, uuid);
    Ok(format!("{folder}/{}", archive::epoch_name(epoch)).parse()?)
}
