//! The REST API as seen from its client.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;

use crate::http::{
    errors::Problem,
    patience::{LONGEST_WAIT, PREFER},
};

/// How long opening a connection may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a whole call may take. The scheduler itself answers within 30 s, if only that it cannot.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// The largest answer: ten thousand clusters of fifteen members stay below it.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Where a scheduler is: `http://host:port`, and a path if it stands behind a proxy.
#[derive(Debug, Clone)]
pub(super) struct BaseUrl(String);

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text
            .parse()
            .map_err(|_| "it is not a URL such as http://scheduler.example.com:8080".to_owned())?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("https"), _) => Err(
                "https is not supported; give an http:// URL, if need be of a local TLS tunnel"
                    .to_owned(),
            ),
            (Some("http"), Some(authority))
                if !authority.as_str().contains('@') && uri.query().is_none() =>
            {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            _ => Err("it is not a URL such as http://scheduler.example.com:8080".to_owned()),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client of one scheduler.
pub(super) struct Api {
    base: BaseUrl,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What the scheduler refused, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub(super) struct Refused {
    pub status: StatusCode,
    problem: Option<Problem>,
}

impl Refused {
    fn sentence(&self) -> String {
        match &self.problem {
            Some(problem) => format!("{} ({})", problem.detail, self.status),
            None => format!("the scheduler answered {} without saying why", self.status),
        }
    }
}

impl Api {
    pub fn new(base: BaseUrl) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        Self {
            base,
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, &[]).await
    }

    /// Sends form fields; those without a value are left out.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, Option<&str>)],
    ) -> anyhow::Result<T> {
        self.call(method, path, fields).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, Option<&str>)],
    ) -> anyhow::Result<T> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = self.exchange(request, urlencoded(fields)).await?;
        answer.content()
    }

    /// Looks at what `path` shows; if the caller knows it already, by its tag, not before it has changed or
    /// `patience` (whole seconds of it) is over.
    pub async fn look<T: DeserializeOwned>(
        &self,
        path: &str,
        known: Option<&HeaderValue>,
        patience: Duration,
    ) -> anyhow::Result<Look<T>> {
        let mut request = Request::get(format!("{}{path}", self.base));
        if let Some(known) = known {
            let wait = patience.min(LONGEST_WAIT).as_secs();
            request = request.header(header::IF_NONE_MATCH, known);
            request = request.header(PREFER, format!("wait={wait}"));
        }
        let answer = self.exchange(request, String::new()).await?;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(Look::Same);
        }
        let found = answer.content()?;
        Ok(Look::New {
            found,
            tag: answer.tag,
        })
    }

    async fn exchange(
        &self,
        request: http::request::Builder,
        body: String,
    ) -> anyhow::Result<Answer> {
        let request = request.body(Full::from(body)).context("make a request")?;
        let what = format!("{} {}", request.method(), request.uri());
        let answer = async {
            let answer = self.client.request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?;
            anyhow::Ok((head, body.to_bytes()))
        };
        let answer = tokio::time::timeout(CALL_DEADLINE, answer).await;
        let (head, body) = answer
            .map_err(|_| anyhow::anyhow!("no answer within {} s", CALL_DEADLINE.as_secs()))
            .and_then(|answer| answer)
            .with_context(|| what.clone())?;
        Ok(Answer {
            what,
            status: head.status,
            tag: head.headers.get(header::ETAG).cloned(),
            body,
        })
    }
}

/// What a look shows.
pub(super) enum Look<T> {
    /// Something that the caller does not know yet.
    New {
        found: T,
        /// By which it will be known.
        tag: Option<HeaderValue>,
    },
    /// Nothing new.
    Same,
}

/// An answer that was read to its end.
struct Answer {
    /// What was asked.
    what: String,
    status: StatusCode,
    tag: Option<HeaderValue>,
    body: Bytes,
}

impl Answer {
    fn content<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if self.status.is_success() {
            return serde_json::from_slice(&self.body).with_context(|| {
                format!(
                    "{}: the answer is not that of a Cotton scheduler",
                    self.what
                )
            });
        }
        Err(Refused {
            status: self.status,
            problem: serde_json::from_slice(&self.body).ok(),
        }
        .into())
    }
}

/// The path of a cluster. A name that is not valid is sent all the same, so that it is the scheduler's sentence
/// that tells what names are like.
pub(super) fn path_of(cluster: &str) -> String {
    format!("/clusters/{}", percent_encoded(cluster))
}

/// Everything but letters, digits, `-` and `_` as `%XX`: right in a path and in a form.
fn percent_encoded(text: &str) -> String {
    let encode = |byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// `application/x-www-form-urlencoded` (URL standard).
fn urlencoded(fields: &[(&str, Option<&str>)]) -> String {
    let pair = |&(name, value): &(&str, Option<&str>)| {
        value.map(|value| format!("{}={}", percent_encoded(name), percent_encoded(value)))
    };
    fields.iter().filter_map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_and_missing_ones_left_out() {
        let fields = [("a", Some("x y&z=ä+%")), ("b", None), ("c-d", Some(""))];
        assert_eq!(urlencoded(&fields), "a=x%20y%26z%3D%C3%A4%2B%25&c-d=");
    }

    #[test]
    fn base_urls() {
        for good in ["http://a", "http://a:8080/", "http://[::1]:80/cotton"] {
            assert!(good.parse::<BaseUrl>().is_ok(), "{good}");
        }
        for bad in ["", "a:8080", "ftp://a", "http://u:p@a", "http://a/?q", "/x"] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
        let https = "https://a".parse::<BaseUrl>().err().unwrap_or_default();
        assert!(https.starts_with("https is not supported"), "{https}");
    }
}
