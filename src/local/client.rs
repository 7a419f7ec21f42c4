//! A small HTTP client for what the stand-in's own processes say to each other.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long the answer's first line may take. What follows may take for ever: streams do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

static CLIENT: LazyLock<Client<HttpConnector, Full<Bytes>>> = LazyLock::new(|| {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(5)));
    Client::builder(TokioExecutor::new()).build(connector)
});

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none.
    #[error("{url} is no URL")]
    Url {
        /// The text.
        url: String,
    },
    /// The connection failed.
    #[error("ask {url}: {source}")]
    Ask {
        /// Where.
        url: String,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// Nobody answered in time.
    #[error("ask {url}: no answer within {}s", ANSWER_TIMEOUT.as_secs())]
    Timeout {
        /// Where.
        url: String,
    },
    /// The answer was no success.
    #[error("ask {url}: it answered {status} {text}")]
    Status {
        /// Where.
        url: String,
        /// The status code.
        status: u16,
        /// The first bytes of the body.
        text: String,
    },
    /// The connection broke within the answer.
    #[error("read the answer of {url}: {source}")]
    Read {
        /// Where.
        url: String,
        /// Why.
        source: hyper::Error,
    },
}

/// An answer's body as it arrives.
#[derive(Debug)]
pub struct Answer {
    url: String,
    response: Response<Incoming>,
}

impl Answer {
    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<String> {
        Some(self.response.headers().get(name)?.to_str().ok()?.to_owned())
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(Error::Read {
                        url: self.url.clone(),
                        source,
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Asks with GET.
///
/// # Errors
///
/// [`Error`]; every status but 2xx counts.
pub async fn get(url: &str) -> Result<Answer, Error> {
    ask(Method::GET, url, &[], Bytes::new()).await
}

/// Posts JSON.
///
/// # Errors
///
/// [`Error`]; every status but 2xx counts.
pub async fn post(url: &str, headers: &[(&str, &str)], json: Bytes) -> Result<Answer, Error> {
    ask(Method::POST, url, headers, json).await
}

async fn ask(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, Error> {
    let bad_url = || Error::Url {
        url: url.to_owned(),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).map_err(|_| bad_url())?;
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, CLIENT.request(request)).await;
    let response = match answer {
        Err(_) => {
            return Err(Error::Timeout {
                url: url.to_owned(),
            });
        }
        Ok(Err(source)) => {
            return Err(Error::Ask {
                url: url.to_owned(),
                source,
            });
        }
        Ok(Ok(response)) => response,
    };
    let status = response.status();
    let mut answer = Answer {
        url: url.to_owned(),
        response,
    };
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.next().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
    Err(Error::Status {
        url: url.to_owned(),
        status: status.as_u16(),
        text,
    })
}
