//! Reading the scheduler's state back.

use std::path::PathBuf;

use futures::{StreamExt as _, stream};

use super::document::parse;
use super::local::{LocalError, LocalFiles};
use super::operations::{Answer, Connection, Read};
use super::paths;
use super::publish::Published;
use super::store::{Loaded, Result, Store, Unusable, Version, blocking};
use crate::cluster::id::ClusterName;
use crate::cluster::record::{self, ClusterRecord};

/// How many clusters are read at a time: enough to keep one connection busy, few enough for its
/// queue to stay short.
pub(super) const LOADS_IN_FLIGHT: usize = 64;

impl Store {
    /// One cluster, or `None` if it has no record.
    pub async fn load(
        &self,
        cluster: &ClusterName,
    ) -> Result<Option<std::result::Result<Loaded, Unusable>>> {
        self.load_named(cluster.as_str()).await
    }

    /// All clusters. A record that cannot be used does not stand in the way of the others.
    pub async fn load_all(&self) -> Result<Vec<std::result::Result<Loaded, Unusable>>> {
        let names = self
            .names(paths::CLUSTERS, LocalFiles::cluster_names)
            .await?;
        let mut loads = stream::iter(names)
            .map(|name| async move { self.load_named(&name).await })
            .buffer_unordered(LOADS_IN_FLIGHT);
        let mut all = Vec::new();
        while let Some(loaded) = loads.next().await {
            // A record that was removed since the names were read is no cluster any more.
            all.extend(loaded?);
        }
        Ok(all)
    }

    async fn load_named(
        &self,
        name: &str,
    ) -> Result<Option<std::result::Result<Loaded, Unusable>>> {
        let node = format!("{}/{name}", paths::CLUSTERS);
        let file = |files: &LocalFiles| files.cluster(name);
        let unusable = |fault: String| Unusable {
            name: name.to_owned(),
            location: self.location(&node, file),
            fault,
        };
        let cluster: ClusterName = match name.parse() {
            Ok(cluster) => cluster,
            Err(error) => return Ok(Some(Err(unusable(format!("{error}"))))),
        };
        let Some((document, version)) = self.document(&node, file).await? else {
            return Ok(None);
        };
        let record = match document.and_then(|value| parse::<ClusterRecord>(value, record::FORMAT))
        {
            Ok(record) if *record.name() == cluster => record,
            Ok(record) => {
                return Ok(Some(Err(unusable(format!(
                    "it is the record of {}",
                    record.name()
                )))));
            }
            Err(fault) => return Ok(Some(Err(unusable(fault)))),
        };
        let published = read_published(&self.session.connection()?, &cluster).await?;
        let is_published = published == Published::of(&record);
        self.known().insert(cluster, published);
        Ok(Some(Ok(Loaded {
            record,
            version,
            is_published,
        })))
    }

    /// The document in a node, or in a file where the state is kept in files, with its version. What is no JSON is a fault of the
    /// document, for whoever asks to tell of.
    pub(super) async fn document(
        &self,
        node: &str,
        file: impl Fn(&LocalFiles) -> PathBuf,
    ) -> Result<Option<(std::result::Result<serde_json::Value, String>, Version)>> {
        if let Some(files) = &self.files {
            let (files, path) = (files.clone(), file(files));
            return match blocking(move || files.read(&path)).await {
                Ok(found) => Ok(found.map(|(document, version)| (Ok(document), Version(version)))),
                // Its version stands in it, and nothing is written over a file whose version is not known.
                Err(LocalError::Damaged { fault, .. }) => Ok(Some((Err(fault), Version(-1)))),
                Err(error) => Err(error.into()),
            };
        }
        let found = self.session.connection()?.get(node).await?;
        Ok(found.map(|(data, stat)| {
            let document = serde_json::from_slice(&data).map_err(|error| error.to_string());
            (document, Version(stat.version))
        }))
    }

    /// The names of all documents of a kind: the children of a node, or the files of a folder.
    pub(super) async fn names(
        &self,
        node: &str,
        list: fn(&LocalFiles) -> std::result::Result<Vec<String>, LocalError>,
    ) -> Result<Vec<String>> {
        if let Some(files) = &self.files {
            let files = files.clone();
            return Ok(blocking(move || list(&files)).await?);
        }
        let names = self.session.connection()?.children(node).await?;
        Ok(names.unwrap_or_default())
    }
}

pub(super) async fn read_published(
    connection: &Connection,
    cluster: &ClusterName,
) -> Result<Published> {
    let (master, slaves) = (paths::master(cluster), paths::slaves(cluster));
    let answers = connection
        .read_all(&[
            Read::Children(paths::control(cluster)),
            Read::Data(paths::goal(cluster)),
            Read::Children(paths::discover(cluster)),
            Read::Children(master.clone()),
            Read::Children(slaves.clone()),
        ])
        .await?;
    let [control, goal, discover, in_master, in_slaves] = <[Answer; 5]>::try_from(answers)
        .unwrap_or([
            Answer::Missing,
            Answer::Missing,
            Answer::Missing,
            Answer::Missing,
            Answer::Missing,
        ]);
    let mut published = Published {
        control: control != Answer::Missing,
        members: matches!(&control, Answer::Children(names) if names.iter().any(|name| name == "members")),
        discover: discover != Answer::Missing,
        ..Published::default()
    };
    if let Answer::Data(data, _) = goal {
        published.goal = Some(data);
    }
    // Both groups' nodes in one more request.
    let names = |answer: Answer| match answer {
        Answer::Children(names) => Some(names),
        Answer::Data(..) | Answer::Missing => None,
    };
    let (in_master, in_slaves) = (names(in_master), names(in_slaves));
    let nodes = |path: &str, names: &Option<Vec<String>>| -> Vec<Read> {
        let names = names.iter().flatten();
        names
            .map(|name| Read::Data(format!("{path}/{name}")))
            .collect()
    };
    let reads = [nodes(&master, &in_master), nodes(&slaves, &in_slaves)].concat();
    let mut answers = connection.read_all(&reads).await?.into_iter();
    for (names, group) in [
        (in_master, &mut published.master),
        (in_slaves, &mut published.slaves),
    ] {
        *group = names.map(|names| {
            let nodes = names.into_iter().zip(&mut answers);
            nodes
                .filter_map(|(name, answer)| match answer {
                    Answer::Data(data, _) => Some((name, data)),
                    Answer::Children(_) | Answer::Missing => None,
                })
                .collect()
        });
    }
    Ok(published)
}
