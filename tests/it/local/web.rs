//! A plain HTTP client, and streams of RecordIO read with it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cotton::mesos::recordio::Decoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Longer than anything here takes on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

pub async fn ask(
    method: &str,
    url: &str,
    headers: &[(String, String)],
    body: &str,
) -> Response<Incoming> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    tokio::time::timeout(DEADLINE, client.request(request))
        .await
        .unwrap()
        .unwrap()
}

pub async fn whole(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = tokio::time::timeout(DEADLINE, body.collect())
        .await
        .unwrap()
        .unwrap()
        .to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text,
    }
}

/// Posts JSON and gives the whole answer.
pub async fn post(url: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut all = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    all.extend(
        headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    whole(ask("POST", url, &all, &body.to_string()).await).await
}

/// Posts a text that is JSON.
pub async fn post_text(url: &str, path: &str, text: &str) -> Answer {
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    whole(ask("POST", &format!("{url}{path}"), &headers, text).await).await
}

/// Reads a JSON document.
pub async fn get(url: &str) -> Option<Value> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.get(url.parse().unwrap()).await.ok()?;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

/// What came on streams: each event with the number of its stream.
#[derive(Debug, Default, Clone)]
pub struct Events(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    events: Vec<(usize, Value)>,
    opened: usize,
    closed: Vec<usize>,
    readers: Vec<(usize, tokio::task::AbortHandle)>,
}

impl Events {
    /// Reads a stream of JSON records to its end, in the background; gives its number.
    pub fn read(&self, mut body: Incoming) -> usize {
        let number = {
            let mut inner = self.0.lock().unwrap();
            inner.opened += 1;
            inner.opened
        };
        let events = self.clone();
        let reader = tokio::spawn(async move {
            let mut decoder = Decoder::new(1 << 24);
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                decoder.feed(&data);
                while let Some(record) = decoder.next().unwrap() {
                    let event = serde_json::from_slice(&record).unwrap();
                    events.0.lock().unwrap().events.push((number, event));
                }
            }
            events.0.lock().unwrap().closed.push(number);
        });
        let handle = (number, reader.abort_handle());
        self.0.lock().unwrap().readers.push(handle);
        number
    }

    /// Ends all streams from this side.
    pub fn hang_up(&self) {
        let mut inner = self.0.lock().unwrap();
        for (number, reader) in std::mem::take(&mut inner.readers) {
            if !inner.closed.contains(&number) {
                reader.abort();
                inner.closed.push(number);
            }
        }
    }

    /// Takes the first event that `wanted` maps to something; waits for it.
    pub async fn take<T>(&self, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            {
                let mut inner = self.0.lock().unwrap();
                let found = inner.events.iter().enumerate();
                let found = found
                    .filter_map(|(index, (_, event))| Some((index, wanted(event)?)))
                    .next();
                if let Some((index, value)) = found {
                    inner.events.remove(index);
                    return value;
                }
            }
            assert!(
                start.elapsed() < DEADLINE,
                "no {what}; there are {:#?}",
                self.0.lock().unwrap().events
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes the next event of a type.
    pub async fn next(&self, kind: &str) -> Value {
        self.take(kind, |event| (event["type"] == kind).then(|| event.clone()))
            .await
    }

    /// Everything that was not taken.
    pub fn left(&self) -> Vec<Value> {
        self.0
            .lock()
            .unwrap()
            .events
            .iter()
            .map(|(_, event)| event.clone())
            .collect()
    }

    /// Takes this one away.
    pub fn remove(&self, event: &Value) {
        let mut inner = self.0.lock().unwrap();
        let index = inner.events.iter().position(|(_, one)| one == event);
        if let Some(index) = index {
            inner.events.remove(index);
        }
    }

    /// Puts something in as if it had arrived.
    pub fn put(&self, event: Value) {
        self.0.lock().unwrap().events.push((0, event));
    }

    /// Waits until a stream has ended.
    pub async fn closed(&self, number: usize) {
        super::super::support::eventually("the end of the stream", DEADLINE, || async {
            self.0
                .lock()
                .unwrap()
                .closed
                .contains(&number)
                .then_some(())
        })
        .await;
    }

    /// How many streams have ended.
    pub fn closed_count(&self) -> usize {
        self.0.lock().unwrap().closed.len()
    }
}
