//! The services that a store can be: a folder, HDFS, S3.

use std::path::Path;

use opendal::{
    HttpTransporter, OperationContext, Operator,
    services::{Fs, S3},
};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::StoreError;
use crate::{backup::hdfs, cluster::backup::BackupStore, keyfile::Account};

/// A folder, which has to be there.
pub(super) fn folder(root: &str) -> Result<Operator, StoreError> {
    if !Path::new(root).is_dir() {
        return Err(StoreError::NoFolder(root.to_owned()));
    }
    made(root, Operator::new(Fs::default().root(root)))
}

/// A folder in HDFS; `authority` is a name node, several, or the name of a service.
pub(super) fn hdfs(url: &str, authority: &str, root: &str) -> Result<Operator, StoreError> {
    made(url, hdfs::operator(authority, root)?)
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
