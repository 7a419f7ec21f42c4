//! HDFS, as Hadoop's own settings know it: for stores of backups, and for single files, as servers' packages are.

use std::{collections::HashMap, io, path::Path};

use bytes::Bytes;
use futures::Stream;
use opendal::{Operator, services::HdfsNative};

use super::{
    hadoop::{self, HadoopError},
    store,
};

/// How often each name node is tried, with pauses that grow from one second to 15: what takes 45 s, in which a standby takes over. The client's own
/// choice is 15 times, which is three minutes.
const ROUNDS: usize = 6;

/// The setting for it (`hdfs-default.xml` of Hadoop; hdfs-native sleeps after each round).
const ATTEMPTS: &str = "dfs.client.failover.max.attempts";

/// How much of a file is asked for at a time, in bytes.
const PIECE: usize = 4 << 20;

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HdfsError {
    /// It is no URL of a file.
    #[error(
        "it must be hdfs://HOST:PORT/path, or hdfs://NAME/path with a name of Hadoop's settings"
    )]
    Url,
    /// Its name nodes are not known.
    #[error(transparent)]
    Hadoop(#[from] HadoopError),
    /// HDFS refuses, or does not answer.
    #[error("HDFS does not give it")]
    Refused(#[from] opendal::Error),
    /// It was not read to its end.
    #[error("HDFS has not given all of it")]
    BrokenOff(#[source] io::Error),
}

/// What is below a folder; `authority` is a name node, several, or the name of a service. Nothing is asked yet, and nothing has a time limit.
///
/// # Errors
/// When Hadoop's settings do not know the name.
pub(super) fn operator(
    authority: &str,
    root: &str,
) -> Result<opendal::Result<Operator>, HadoopError> {
    let folder = std::env::var_os("HADOOP_CONF_DIR");
    let nodes = hadoop::name_nodes(authority, folder.as_ref().map(Path::new))?;
    let attempts = ROUNDS * nodes.len();
    let nodes: Vec<String> = nodes.iter().map(|node| format!("hdfs://{node}")).collect();
    let builder = HdfsNative::default()
        .name_node(&nodes.join(","))
        .options(HashMap::from([(ATTEMPTS.to_owned(), attempts.to_string())]))
        .root(root);
    Ok(Operator::new(builder))
}

/// The content of the file at `hdfs://...`, piece by piece.
///
/// # Errors
/// When there is none, or HDFS does not answer. Reading on has a time limit as well, and ends with an error.
pub async fn read(url: &str) -> Result<impl Stream<Item = io::Result<Bytes>>, HdfsError> {
    let rest = url.strip_prefix("hdfs://").ok_or(HdfsError::Url)?;
    let (authority, path) = rest.split_once('/').ok_or(HdfsError::Url)?;
    if authority.is_empty() || path.is_empty() {
        return Err(HdfsError::Url);
    }
    let (_, reading) = store::with_limits(operator(authority, "/")??);
    let length = reading.stat(path).await?.content_length();
    let reader = reading.reader_with(path).chunk(PIECE).await?;
    Ok(reader.into_bytes_stream(0..length).await?)
}
