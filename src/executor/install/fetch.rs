//! Getting a package onto this machine, and making sure that it is the right one.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::{Request, StatusCode, Uri, header::LOCATION};
use http_body_util::{BodyExt, Empty};
use hyper::{Response, body::Incoming};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use sha2::{Digest, Sha256};
use tokio::{task, time};

use crate::backup::hdfs::{self, HdfsError};

/// How long a server may take to answer, or to send the next piece of a package.
const SILENCE: Duration = Duration::from_secs(60);

/// The largest package. MySQL's full tarball with debugging symbols has less than 1 GiB.
const MAX_BYTES: u64 = 4 << 30;

/// How many times a server may send us elsewhere.
const MAX_REDIRECTS: usize = 5;

/// A package cannot be had, or is not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is at a place that is not known here.
    #[error("it must be http://..., hdfs://..., file:///... or an absolute path")]
    Scheme,
    /// A file cannot be read or written.
    #[error("the file {path} cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server cannot be reached or breaks off.
    #[error("{url} does not answer")]
    Http {
        /// What was asked for.
        url: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// HDFS does not have it, or cannot be reached.
    #[error("{url} cannot be read")]
    Hdfs {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: Box<HdfsError>,
    },
    /// The server is silent.
    #[error("{url} was silent for {SILENCE:?}")]
    Silent {
        /// What was asked for.
        url: String,
    },
    /// The server has no such package.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// The server sends us from place to place.
    #[error("it was redirected more than {MAX_REDIRECTS} times, at last to {url}")]
    Redirects {
        /// The last one.
        url: String,
    },
    /// The package is too large to be one.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The package is another one.
    #[error("its SHA-256 is {found}, but {expected} was asked for")]
    Checksum {
        /// What was asked for.
        expected: String,
        /// What was found.
        found: String,
    },
}

/// A package on this machine. A downloaded one is removed when this is dropped.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    downloaded: bool,
}

impl Local {
    /// The package.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.downloaded {
            // What cannot be removed goes with the sandbox.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Fetches a package, into `download` if it is not on this machine yet.
///
/// # Errors
/// When it cannot be had completely or its checksum differs.
pub async fn fetch(
    package: &str,
    sha256: Option<&str>,
    download: &Path,
) -> Result<Local, FetchError> {
    let path = package.strip_prefix("file://").unwrap_or(package);
    let local = if path.starts_with('/') {
        Local {
            path: path.into(),
            downloaded: false,
        }
    } else if ["http://", "hdfs://"]
        .iter()
        .any(|it| package.starts_with(it))
    {
        Local {
            path: download.to_owned(),
            downloaded: true,
        }
    } else {
        return Err(FetchError::Scheme);
    };
    let found = match (local.downloaded, sha256) {
        (true, _) => self::download(package, &local.path).await?,
        (false, Some(_)) => hash_file(local.path.clone()).await?,
        (false, None) => return Ok(local),
    };
    match sha256 {
        Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(FetchError::Checksum {
            expected: expected.to_owned(),
            found,
        }),
        _ => Ok(local),
    }
}

async fn hash_file(path: PathBuf) -> Result<String, FetchError> {
    let hashed = path.clone();
    task::spawn_blocking(move || {
        let mut file = File::open(&hashed)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex::encode(hasher.finalize())),
                n => hasher.update(&buffer[..n]),
            }
        }
    })
    .await
    .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    .map_err(|source| FetchError::File { path, source })
}

/// Writes what is at `url` into `path` and returns its SHA-256.
async fn download(url: &str, path: &Path) -> Result<String, FetchError> {
    if url.starts_with("hdfs://") {
        let hdfs_error = |source| FetchError::Hdfs {
            url: url.to_owned(),
            source: Box::new(source),
        };
        let pieces = hdfs::read(url).await.map_err(hdfs_error)?;
        let pieces = pieces.map_err(|source| hdfs_error(HdfsError::BrokenOff(source)));
        return save(url, pieces, path).await;
    }
    let pieces = get(url).await?.into_body().into_data_stream();
    let pieces = pieces.map_err(|source| http_error(url, source));
    save(url, pieces, path).await
}

async fn save(
    url: &str,
    pieces: impl Stream<Item = Result<Bytes, FetchError>>,
    path: &Path,
) -> Result<String, FetchError> {
    let write = |source| FetchError::File {
        path: path.to_owned(),
        source,
    };
    let mut pieces = pin!(pieces);
    let mut file = File::create(path).map_err(write)?;
    let mut hasher = Sha256::new();
    let mut length = 0;
    while let Some(piece) =
        time::timeout(SILENCE, pieces.next())
            .await
            .map_err(|_| FetchError::Silent {
                url: url.to_owned(),
            })?
    {
        let piece = piece?;
        length += piece.len() as u64;
        if length > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        hasher.update(&piece);
        // The file is in the page cache; a write blocks no longer than the hashing beside it.
        file.write_all(&piece).map_err(write)?;
    }
    Ok(hex::encode(hasher.finalize()))
}

async fn get(url: &str) -> Result<Response<Incoming>, FetchError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut url = url.to_owned();
    for _ in 0..=MAX_REDIRECTS {
        let uri: Uri = url
            .parse()
            .map_err(|source: http::uri::InvalidUri| http_error(&url, source))?;
        if uri.scheme_str() != Some("http") {
            return Err(FetchError::Scheme);
        }
        let request = Request::get(uri)
            .body(Empty::new())
            .map_err(|source| http_error(&url, source))?;
        let answer = time::timeout(SILENCE, client.request(request))
            .await
            .map_err(|_| FetchError::Silent { url: url.clone() })?
            .map_err(|source| http_error(&url, source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let location = answer
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        match location {
            Some(location) if status.is_redirection() => url = resolve(&url, location),
            _ => return Err(FetchError::Status { url, status }),
        }
    }
    Err(FetchError::Redirects { url })
}

/// Where a `Location` leads that was answered for `url`: it may leave out the scheme or the server.
fn resolve(url: &str, location: &str) -> String {
    if location.starts_with("//") {
        return format!("http:{location}");
    }
    if location.starts_with('/') {
        let server = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        return format!("{server}{location}");
    }
    location.to_owned()
}

fn http_error(
    url: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> FetchError {
    FetchError::Http {
        url: url.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use axum::{Router, response::Redirect, routing::get};

    use super::*;

    const CONTENT: &str = "the package";
    /// Of something else.
    const OTHER_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn checksum() -> String {
        hex::encode(Sha256::digest(CONTENT))
    }

    async fn server() -> String {
        let routes = Router::new()
            .route("/package", get(|| async { CONTENT }))
            .route("/moved", get(|| async { Redirect::temporary("/package") }))
            .route("/loop", get(|| async { Redirect::temporary("/loop") }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_package_is_downloaded_checked_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("download");
        let server = server().await;
        for path in ["package", "moved"] {
            let local = fetch(&format!("{server}/{path}"), Some(&checksum()), &to)
                .await
                .unwrap();
            assert_eq!(fs::read_to_string(local.path()).unwrap(), CONTENT);
            drop(local);
            assert!(!to.exists());
        }
    }

    #[tokio::test]
    async fn a_file_is_used_where_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("package");
        fs::write(&file, CONTENT).unwrap();
        for package in [
            file.display().to_string(),
            format!("file://{}", file.display()),
        ] {
            let local = fetch(&package, Some(&checksum()), Path::new("/none"))
                .await
                .unwrap();
            assert_eq!(local.path(), file);
        }
        assert!(file.exists());
    }

    /// Goal: every failure says which. Method: a table of places and the variant each one gets.
    #[tokio::test]
    async fn what_cannot_be_fetched_is_told_apart() {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("download");
        let server = server().await;
        let error = async |package: &str, sha256: Option<&str>| {
            let error = fetch(package, sha256, &to).await.unwrap_err();
            assert!(!to.exists(), "{package} left something behind");
            error
        };
        let url = |path: &str| format!("{server}/{path}");
        assert!(matches!(
            error(&url("package"), Some(OTHER_SHA256)).await,
            FetchError::Checksum { .. }
        ));
        assert!(matches!(
            error(&url("none"), None).await,
            FetchError::Status { .. }
        ));
        assert!(matches!(
            error(&url("loop"), None).await,
            FetchError::Redirects { .. }
        ));
        assert!(matches!(
            error("http://127.0.0.1:1/x", None).await,
            FetchError::Http { .. }
        ));
        for hdfs in ["hdfs://a", "hdfs:///b", "hdfs://a/b"] {
            let error = error(hdfs, None).await;
            assert!(matches!(error, FetchError::Hdfs { .. }), "{hdfs}: {error}");
        }
        assert!(matches!(error("ftp://a/b", None).await, FetchError::Scheme));
        assert!(matches!(error("relative", None).await, FetchError::Scheme));
        assert!(matches!(
            error("/does/not/exist", Some(OTHER_SHA256)).await,
            FetchError::File { .. }
        ));
    }
}
