//! The scheduler's own binary, for agents to fetch: one artifact is enough for a whole installation.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
    path::Path,
};

use axum::{
    body::Body,
    extract::{Path as UrlPath, State},
    http::header,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;

use super::{errors::ApiError, port::SchedulerPort};

/// A binary that was opened and whose digest was taken. Replacing the file on disk changes neither, so agents
/// get what runs here, and what they cache under a name always is the same.
#[derive(Debug)]
pub struct ExecutorBinary {
    file: File,
    length: u64,
    sha256: String,
}

impl ExecutorBinary {
    /// Opens the binary of this process. Reads all of it: not for an async task.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_this_process() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// Opens a binary. Reads all of it: not for an async task.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut digest = Sha256::new();
        let mut length = 0;
        let mut chunk = vec![0; 256 * 1024];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            digest.update(&chunk[..read]);
            length += read as u64;
        }
        Ok(Self {
            file,
            length,
            sha256: hex::encode(digest.finalize()),
        })
    }

    /// `cotton-<sha256>`: its name in URLs and in sandboxes.
    pub fn file_name(&self) -> String {
        format!("cotton-{}", self.sha256)
    }

    /// The path of its URL.
    pub fn url_path(&self) -> String {
        format!("/executor/{}", self.file_name())
    }

    async fn stream(&self) -> io::Result<Body> {
        // The link in /proc leads to the opened file even when its name has been given to another one, and
        // opening it anew gives each download a position of its own (proc(5)).
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let file = tokio::fs::File::open(link).await?;
        Ok(Body::from_stream(ReaderStream::with_capacity(
            file,
            256 * 1024,
        )))
    }
}

/// `GET /executor/cotton-<sha256>`
pub(super) async fn serve(
    State(port): State<SchedulerPort>,
    UrlPath(name): UrlPath<String>,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::UnknownPath(format!("/executor/{name}"));
    let binary = port
        .executor
        .filter(|binary| binary.file_name() == name)
        .ok_or_else(unknown)?;
    let body = binary.stream().await.map_err(|error| {
        tracing::error!(%error, "the executor's binary cannot be read again");
        ApiError::Stopping
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, binary.length.to_string()),
        (header::ETAG, format!("\"{}\"", binary.sha256)),
    ];
    Ok((headers, body).into_response())
}
