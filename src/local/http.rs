//! What the scheduler's and the executor's HTTP API have in common: media types, bodies, event
//! streams, and the sentences that refuse a call. The sentences are those of Mesos.

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use prost::Name;
use tokio::sync::{mpsc, oneshot};

use crate::mesos::{json, recordio};

/// Names one subscription of a framework; every later call carries it.
pub const STREAM_ID: HeaderName = HeaderName::from_static("mesos-stream-id");

/// The longest request body that is read. Calls are a few kilobytes; a launch of hundreds of tasks
/// stays far below it.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// How many events may wait for a reader. One that falls further behind is cut off and comes back
/// with a new subscription, instead of filling the memory.
const MAX_WAITING_EVENTS: usize = 4096;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

/// An answer that is not a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// A sentence, or nothing.
    pub text: String,
}

impl Reply {
    /// The call was taken: 202 without a body.
    pub fn accepted() -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            text: String::new(),
        }
    }

    /// 200 with this body.
    pub fn ok(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::OK,
            text: text.into(),
        }
    }

    /// The call is wrong: 400 with the reason.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: text.into(),
        }
    }

    /// The call is not allowed now: 403 with the reason.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            text: text.into(),
        }
    }

    /// The answer for the wire.
    pub fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.text.clone()));
        *response.status_mut() = self.status;
        if !self.text.is_empty() {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
        }
        response
    }
}

impl Encoding {
    /// The media type's name.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    /// How the body of a request is written.
    ///
    /// # Errors
    ///
    /// The answer that refuses the request.
    pub fn of_body(headers: &HeaderMap) -> Result<Self, Reply> {
        let Some(name) = headers.get(CONTENT_TYPE) else {
            return Err(Reply::bad_request("Expecting 'Content-Type' to be present"));
        };
        let name = name.to_str().unwrap_or_default();
        match name.split(';').next().unwrap_or_default().trim() {
            "application/json" => Ok(Self::Json),
            "application/x-protobuf" => Ok(Self::Protobuf),
            _ => Err(Reply {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                text: "Expecting 'Content-Type' of application/json or application/x-protobuf"
                    .to_owned(),
            }),
        }
    }

    /// How the asker wants events; JSON goes before protobuf if both are welcome.
    ///
    /// # Errors
    ///
    /// The answer that refuses the request.
    pub fn of_answer(headers: &HeaderMap) -> Result<Self, Reply> {
        let Some(accept) = headers.get(ACCEPT) else {
            return Ok(Self::Json);
        };
        let accept = accept.to_str().unwrap_or_default();
        let mut welcome = Vec::new();
        for item in accept.split(',') {
            welcome.push(item.split(';').next().unwrap_or_default().trim());
        }
        let accepts = |name| {
            let any = welcome.contains(&"*/*") || welcome.contains(&"application/*");
            any || welcome.contains(&name)
        };
        if accepts(Self::Json.media_type()) {
            return Ok(Self::Json);
        }
        if accepts(Self::Protobuf.media_type()) {
            return Ok(Self::Protobuf);
        }
        Err(Reply {
            status: StatusCode::NOT_ACCEPTABLE,
            text: "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"
                .to_owned(),
        })
    }

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// The answer that refuses the request.
    pub fn decode<M: Name + Default>(self, body: &[u8]) -> Result<M, Reply> {
        let read = match self {
            Self::Json => json::from_slice(body),
            Self::Protobuf => json::from_protobuf(body),
        };
        read.map_err(|error| Reply::bad_request(error.to_string()))
    }

    /// Writes a message.
    pub fn encode<M: Name>(self, message: &M) -> Bytes {
        match self {
            Self::Json => Bytes::from(json::to_string(message)),
            Self::Protobuf => Bytes::from(message.encode_to_vec()),
        }
    }
}

/// Refuses everything but POST.
///
/// # Errors
///
/// The 405 that Mesos gives.
#[allow(clippy::result_large_err, reason = "the answer is sent at once")]
pub fn only_post(method: &Method) -> Result<(), Response<Body>> {
    if method == Method::POST {
        return Ok(());
    }
    let text =
        format!("405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{method}'.");
    let mut response = Reply {
        status: StatusCode::METHOD_NOT_ALLOWED,
        text,
    }
    .response();
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("POST"));
    Err(response)
}

/// Reads a request's body up to a bound.
///
/// # Errors
///
/// The answer that refuses the request.
pub async fn read_body(body: Body) -> Result<Bytes, Reply> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Reply {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            text: format!("The body is larger than {MAX_BODY_BYTES} bytes"),
        }),
        Err(error) => Err(Reply::bad_request(format!(
            "Failed to read the body: {error}"
        ))),
    }
}

/// The writing end of an event stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct Events {
    encoding: Encoding,
    records: mpsc::Sender<Bytes>,
}

impl Events {
    /// Sends one event; false when the reader is gone or too far behind.
    pub fn send<M: Name>(&self, event: &M) -> bool {
        self.send_record(&self.encoding.encode(event))
    }

    /// Sends one record as it is; false when the reader is gone or too far behind.
    pub fn send_record(&self, record: &[u8]) -> bool {
        self.records.try_send(recordio::encode(record)).is_ok()
    }
}

/// Resolves when the reader of a stream is gone, or has read all of it.
pub type Gone = oneshot::Receiver<std::convert::Infallible>;

/// An open stream: the end to write to, the answer that carries the other end, and the news of its
/// end.
pub fn stream(encoding: Encoding) -> (Events, Response<Body>, Gone) {
    let (records, inbox) = mpsc::channel::<Bytes>(MAX_WAITING_EVENTS);
    // The guard lives as long as the body that the connection holds; its drop is the news.
    let (guard, gone) = oneshot::channel();
    let body = futures::stream::unfold((inbox, guard), |(mut inbox, guard)| async move {
        let record = inbox.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(record), (inbox, guard)))
    });
    let mut response = Response::new(Body::from_stream(body));
    let media_type = HeaderValue::from_static(encoding.media_type());
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    (Events { encoding, records }, response, gone)
}
