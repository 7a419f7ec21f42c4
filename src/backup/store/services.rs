//! The services that a store can be: a folder, HDFS, S3.

use std::{collections::HashMap, path::Path};

use opendal::{
    HttpTransporter, OperationContext, Operator,
    services::{Fs, HdfsNative, S3},
};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::StoreError;
use crate::{backup::hadoop, cluster::backup::BackupStore, keyfile::Account};

/// How often each name node is tried, with pauses that grow from one second to 15: what takes 45 s, in which a standby takes over. The client's own
/// choice is 15 times, which is three minutes.
const HDFS_ROUNDS: usize = 6;

/// The setting for it (`hdfs-default.xml` of Hadoop; hdfs-native sleeps after each round).
const HDFS_ATTEMPTS: &str = "dfs.client.failover.max.attempts";

/// A folder, which has to be there.
pub(super) fn folder(root: &str) -> Result<Operator, StoreError> {
    if !Path::new(root).is_dir() {
        return Err(StoreError::NoFolder(root.to_owned()));
    }
    made(root, Operator::new(Fs::default().root(root)))
}

/// A folder in HDFS; `authority` is a name node, several, or the name of a service.
pub(super) fn hdfs(url: &str, authority: &str, root: &str) -> Result<Operator, StoreError> {
    let folder = std::env::var_os("HADOOP_CONF_DIR");
    let nodes = hadoop::name_nodes(authority, folder.as_ref().map(Path::new))?;
    let attempts = HDFS_ROUNDS * nodes.len();
    let nodes: Vec<String> = nodes.iter().map(|node| format!("hdfs://{node}")).collect();
    let builder = HdfsNative::default()
        .name_node(&nodes.join(","))
        .options(HashMap::from([(
            HDFS_ATTEMPTS.to_owned(),
            attempts.to_string(),
        )]))
        .root(root);
    made(url, Operator::new(builder))
}

/// What is below a prefix in a bucket.
pub(super) fn s3(settings: &BackupStore, bucket: &str, root: &str) -> Result<Operator, StoreError> {
    let region = settings.region.as_ref().ok_or(StoreError::NoRegion)?;
    let mut builder = S3::default().bucket(bucket).root(root).region(region);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(path) = &settings.credentials {
        let Account { username, password } = Account::read(Path::new(path))?;
        builder = builder
            .access_key_id(&username)
            .secret_access_key(password.expose())
            .disable_config_load()
            .disable_ec2_metadata();
    }
    let operator = made(&settings.url, Operator::new(builder))?;
    let context = OperationContext::new().with_http_transport(http()?);
    Ok(operator.with_context(context))
}

/// What OpenDAL asks S3 with. Its own default would panic where no client can be made.
fn http() -> Result<HttpTransporter, StoreError> {
    // The client brings no cryptography of its own. That another part of the process was first is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().build();
    let transport = ReqwestTransport::new(client.map_err(StoreError::Http)?);
    Ok(HttpTransporter::new(transport))
}

fn made(url: &str, operator: opendal::Result<Operator>) -> Result<Operator, StoreError> {
    operator.map_err(|source| StoreError::Operation {
        url: url.to_owned(),
        what: "be opened".to_owned(),
        source: Box::new(source),
    })
}
