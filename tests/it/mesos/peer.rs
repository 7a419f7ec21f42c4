//! A master or an agent whose part the test itself plays: each request that arrives is handed to the
//! test, which looks at it and answers when and how it likes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cotton::mesos::recordio;
use futures::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// How long anything may take that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);

type Body = BoxBody<Bytes, Infallible>;

/// A server that asks the test what to answer.
pub struct Peer {
    pub address: String,
    requests: mpsc::UnboundedReceiver<Received>,
    server: JoinHandle<()>,
}

/// A request that waits for its answer.
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    reply: oneshot::Sender<Response<Body>>,
}

/// An answered subscription. The stream ends when this is dropped.
pub struct Stream(mpsc::Sender<Bytes>);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

impl Listener {
    async fn accept(&self) -> Box<dyn Socket> {
        match self {
            Self::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

impl Peer {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// Listens on an address that is free or was this peer's before.
    pub async fn start_at(address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::serve(address, Listener::Tcp(listener))
    }

    /// Listens on a unix domain socket.
    pub fn start_unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::serve(path.display().to_string(), Listener::Unix(listener))
    }

    fn serve(address: String, listener: Listener) -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            // Dropped with this task, which breaks the connections.
            let mut connections = JoinSet::new();
            loop {
                let socket = listener.accept().await;
                let sender = sender.clone();
                let service = service_fn(move |request| receive(sender.clone(), request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                connections.spawn(connection);
            }
        });
        Self {
            address,
            requests,
            server,
        }
    }

    /// The next request.
    pub async fn request(&mut self) -> Received {
        timeout(DEADLINE, self.requests.recv())
            .await
            .expect("a request arrives")
            .unwrap()
    }

    /// Whether no request is waiting.
    pub fn is_idle(&mut self) -> bool {
        self.requests.is_empty()
    }

    /// Breaks all connections and listens no more, as a killed process does.
    pub async fn stop(mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    requests: mpsc::UnboundedSender<Received>,
    request: Request<Incoming>,
) -> Result<Response<Body>, String> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let (reply, answer) = oneshot::channel();
    let received = Received {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
        reply,
    };
    requests.send(received).map_err(|_| "the test is over")?;
    // An error here closes the connection without an answer.
    answer.await.map_err(|_| "no answer".to_owned())
}

impl Received {
    /// The body as a call.
    pub fn call<M: Message + Default>(&self) -> M {
        M::decode(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn answer(self, status: StatusCode, text: &'static str) {
        let body = Full::new(Bytes::from_static(text.as_bytes())).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let _ = self.reply.send(response);
    }

    pub fn accept(self) {
        self.answer(StatusCode::ACCEPTED, "");
    }

    /// 307, as a master answers that does not lead.
    pub fn redirect(self, location: &str) {
        let mut response = Response::new(Full::default().boxed());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let location = location.parse().unwrap();
        response.headers_mut().insert("Location", location);
        let _ = self.reply.send(response);
    }

    /// Closes the connection without an answer.
    pub fn hang_up(self) {}

    /// 200 and a stream of events.
    pub fn stream(self) -> Stream {
        self.stream_of("application/x-protobuf")
    }

    pub fn stream_of(self, media_type: &'static str) -> Stream {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let frames = stream::unfold(receiver, async |mut receiver| {
            let bytes = receiver.recv().await?;
            Some((Ok(Frame::data(bytes)), receiver))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed());
        let headers = response.headers_mut();
        headers.insert("Content-Type", media_type.parse().unwrap());
        headers.insert("Mesos-Stream-Id", STREAM_ID.parse().unwrap());
        let _ = self.reply.send(response);
        Stream(sender)
    }
}

/// The id of every stream that a [`Peer`] opens.
pub const STREAM_ID: &str = "c5e317e6-87c7-447e-b7a6-ed8641012822";

impl Stream {
    /// Sends a message with its length before it.
    pub async fn event(&self, event: &impl Message) {
        self.bytes(recordio::encode(&event.encode_to_vec())).await;
    }

    /// Sends a recorded message, by the name of its file.
    pub async fn recorded(&self, name: &str) {
        let folder = crate::support::in_project("tests/fixtures/mesos/protobuf");
        let message = std::fs::read(folder.join(name)).unwrap();
        self.bytes(recordio::encode(&message)).await;
    }

    /// Sends bytes as they are.
    pub async fn bytes(&self, bytes: impl Into<Bytes>) {
        // The client may have gone.
        let _ = self.0.send(bytes.into()).await;
    }

    /// Waits until the client has closed the stream.
    pub async fn closed(&self) {
        timeout(DEADLINE, self.0.closed())
            .await
            .expect("the client closes the stream");
    }
}
