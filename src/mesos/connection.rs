//! One HTTP connection to a Mesos master or agent, and the stream of events that a subscription is.
//!
//! Every wait has a deadline, and an error says whether the peer may have acted on the request: a
//! caller that cannot know must find out before it acts again.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::authentication::Authorization;
use super::recordio::{self, Decoder};

/// The media type of protobuf in the Mesos v1 API.
const PROTOBUF: &str = "application/x-protobuf";

/// The longest event that is taken: 64 MiB. The largest ones are OFFERS, a few kilobytes per agent,
/// so that this is room for ten thousand agents, and yet a bound for what a broken peer can make
/// this process hold in memory.
pub const MAX_EVENT_BYTES: usize = 64 << 20;

/// How much of an error's text is read. Mesos answers with one sentence.
const MAX_SENTENCE_BYTES: usize = 4096;

/// The longest path of a unix domain socket, with its terminating zero, on Linux (unix(7)).
const MAX_SOCKET_PATH: usize = 108;

/// Where a master or an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`; an IPv6 address stands in brackets.
    Tcp(String),
    /// The path of a unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The two deadlines of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For opening the connection.
    pub connect: Duration,
    /// From sending a request to the head of its answer.
    pub answer: Duration,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer cannot be reached.
    #[error("connect to {endpoint}")]
    Connect {
        /// The peer.
        endpoint: Endpoint,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The request could not be written, so that the peer has not acted on it.
    #[error("send a request to {endpoint}")]
    NotSent {
        /// The peer.
        endpoint: Endpoint,
        /// What went wrong.
        #[source]
        source: hyper::Error,
    },
    /// The connection broke after the request was sent.
    #[error("read the answer of {endpoint} to a request")]
    Lost {
        /// The peer.
        endpoint: Endpoint,
        /// What went wrong.
        #[source]
        source: hyper::Error,
    },
    /// The peer took the request and said nothing.
    #[error("{endpoint} has not answered a request within {after:?}")]
    NoAnswer {
        /// The peer.
        endpoint: Endpoint,
        /// The deadline that passed.
        after: Duration,
    },
}

impl ConnectionError {
    /// Whether the peer may have received the request and acted on it.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::NotSent { .. } => false,
            Self::Lost { .. } | Self::NoAnswer { .. } => true,
        }
    }
}

/// A call as it goes over the wire.
pub(super) struct Post<'a> {
    pub path: &'a PathAndQuery,
    pub body: Bytes,
    pub authorization: Option<&'a Authorization>,
    pub stream_id: Option<&'a HeaderValue>,
}

/// An open connection that carries one request at a time.
pub(super) struct Connection {
    endpoint: Endpoint,
    deadlines: Deadlines,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(endpoint: &Endpoint, deadlines: Deadlines) -> Result<Self, ConnectionError> {
        let connect = async {
            match endpoint {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await?;
                    // Calls are small; waiting to fill a packet would only delay them.
                    stream.set_nodelay(true)?;
                    handshake(stream).await
                }
                Endpoint::Unix(path) => handshake(connect_unix(path).await?).await,
            }
        };
        let sender = timeout(deadlines.connect, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ConnectionError::Connect {
                endpoint: endpoint.clone(),
                source,
            })?;
        Ok(Self {
            endpoint: endpoint.clone(),
            deadlines,
            sender,
        })
    }

    /// Sends one call and waits for the head of its answer.
    ///
    /// After an error the connection is not to be used again.
    pub async fn post(&mut self, post: &Post<'_>) -> Result<Response<Incoming>, ConnectionError> {
        let endpoint = || self.endpoint.clone();
        let request = self.request(post);
        self.sender
            .ready()
            .await
            .map_err(|source| ConnectionError::NotSent {
                endpoint: endpoint(),
                source,
            })?;
        let answer = timeout(self.deadlines.answer, self.sender.try_send_request(request));
        match answer.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut error)) => {
                // The request comes back when nothing of it was written.
                let unsent = error.take_message().is_some();
                let (endpoint, source) = (endpoint(), error.into_error());
                Err(if unsent {
                    ConnectionError::NotSent { endpoint, source }
                } else {
                    ConnectionError::Lost { endpoint, source }
                })
            }
            Err(_) => Err(ConnectionError::NoAnswer {
                endpoint: endpoint(),
                after: self.deadlines.answer,
            }),
        }
    }

    /// Whether the peer has not closed it.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Turns the answer to a SUBSCRIBE into the stream that it opens. The connection stays open as
    /// long as the stream lives.
    pub fn into_stream<E>(self, response: Response<Incoming>) -> EventStream<E> {
        EventStream {
            endpoint: self.endpoint,
            _sender: self.sender,
            body: response.into_body(),
            decoder: Decoder::new(MAX_EVENT_BYTES),
            number: 0,
            event: PhantomData,
        }
    }

    fn request(&self, post: &Post<'_>) -> Request<Full<Bytes>> {
        let host = match &self.endpoint {
            Endpoint::Tcp(address) => address.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::new(Full::new(post.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = post.path.clone().into();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        headers.insert(ACCEPT, HeaderValue::from_static(PROTOBUF));
        if let Some(value) = post.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some(value) = post.stream_id {
            headers.insert("mesos-stream-id", value.clone());
        }
        request
    }
}

async fn handshake<S>(stream: S) -> io::Result<http1::SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends when the sender and the body of the last answer are dropped. Its error is the one that
    // the request or the body gives.
    tokio::spawn(connection);
    Ok(sender)
}

/// Connects to a unix domain socket, also where the path is longer than the system call takes: then
/// by way of the open folder, as sandboxes lie deep.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() < MAX_SOCKET_PATH {
        return UnixStream::connect(path).await;
    }
    use std::os::fd::AsRawFd;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = tokio::fs::File::open(folder).await?;
    let short = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    UnixStream::connect(short).await
}

/// The sentence that came with an answer that is not 200 or 202.
pub(super) async fn sentence(response: Response<Incoming>, within: Duration) -> String {
    let body = Limited::new(response.into_body(), MAX_SENTENCE_BYTES).collect();
    match timeout(within, body).await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        // What stands there is for people only; the status says what matters.
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

/// `503 Service Unavailable: <sentence>`, as far as there is one.
pub(super) fn status_and_sentence(status: StatusCode, sentence: &str) -> String {
    if sentence.is_empty() || sentence == format!("{status}.") {
        status.to_string()
    } else {
        format!("{status}: {sentence}")
    }
}

/// Whether an answer is a stream of protobuf messages; else what it claims to be.
pub(super) fn check_media_type(response: &Response<Incoming>) -> Result<(), String> {
    match response.headers().get(CONTENT_TYPE) {
        Some(value) if value.as_bytes().starts_with(PROTOBUF.as_bytes()) => Ok(()),
        Some(value) => Err(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => Err("no Content-Type".to_owned()),
    }
}

/// Why a stream of events is over.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer closed the stream between two events.
    #[error("{endpoint} closed the event stream")]
    Closed {
        /// The peer.
        endpoint: Endpoint,
    },
    /// The connection broke.
    #[error("the event stream from {endpoint} broke")]
    Broken {
        /// The peer.
        endpoint: Endpoint,
        /// What went wrong.
        #[source]
        source: hyper::Error,
    },
    /// Nothing arrived for longer than heartbeats leave room for.
    #[error("nothing came from {endpoint} for {after:?}, not even a heartbeat")]
    Silent {
        /// The peer.
        endpoint: Endpoint,
        /// The deadline that passed.
        after: Duration,
    },
    /// The stream is not RecordIO, or a record is too long.
    #[error("refuse event {number} from {endpoint}")]
    Frame {
        /// The peer.
        endpoint: Endpoint,
        /// Which event of the stream, from 1.
        number: u64,
        /// What is wrong with it.
        #[source]
        source: recordio::Error,
    },
    /// A record is not the message that it should be.
    #[error("refuse event {number} from {endpoint}: its {length} bytes are not a Mesos v1 event")]
    Message {
        /// The peer.
        endpoint: Endpoint,
        /// Which event of the stream, from 1.
        number: u64,
        /// The record's length in bytes.
        length: usize,
        /// What is wrong with it.
        #[source]
        source: prost::DecodeError,
    },
    /// A message lacks what its type promises.
    #[error("refuse event {number} from {endpoint}: {what}")]
    Incomplete {
        /// The peer.
        endpoint: Endpoint,
        /// Which event of the stream, from 1.
        number: u64,
        /// What is missing.
        what: String,
    },
}

/// The events of a subscription.
pub(super) struct EventStream<E> {
    endpoint: Endpoint,
    _sender: http1::SendRequest<Full<Bytes>>,
    body: Incoming,
    decoder: Decoder,
    /// How many events were taken.
    number: u64,
    event: PhantomData<fn() -> E>,
}

impl<E: prost::Message + Default> EventStream<E> {
    /// The next event. `silence` is how long no byte may come. Can be cancelled without loss.
    pub async fn next(&mut self, silence: Duration) -> Result<E, StreamError> {
        loop {
            if let Some(record) = self.decoder.next().map_err(|source| self.frame(source))? {
                self.number += 1;
                let length = record.len();
                return E::decode(record).map_err(|source| StreamError::Message {
                    endpoint: self.endpoint.clone(),
                    number: self.number,
                    length,
                    source,
                });
            }
            let piece = timeout(silence, self.body.frame()).await;
            match piece {
                Err(_) => {
                    return Err(StreamError::Silent {
                        endpoint: self.endpoint.clone(),
                        after: silence,
                    });
                }
                Ok(None) => {
                    self.decoder.finish().map_err(|source| self.frame(source))?;
                    return Err(StreamError::Closed {
                        endpoint: self.endpoint.clone(),
                    });
                }
                Ok(Some(Err(source))) => {
                    return Err(StreamError::Broken {
                        endpoint: self.endpoint.clone(),
                        source,
                    });
                }
                Ok(Some(Ok(frame))) => {
                    // Trailers mean nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        self.decoder.feed(&bytes);
                    }
                }
            }
        }
    }

    /// The error for an event that was decoded but lacks something.
    pub fn incomplete(&self, what: impl Into<String>) -> StreamError {
        StreamError::Incomplete {
            endpoint: self.endpoint.clone(),
            number: self.number,
            what: what.into(),
        }
    }

    fn frame(&self, source: recordio::Error) -> StreamError {
        StreamError::Frame {
            endpoint: self.endpoint.clone(),
            number: self.number + 1,
            source,
        }
    }
}

/// An error with its causes in one line, for a reason that people read.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
