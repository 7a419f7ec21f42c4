//! A way to the Mesos master on which a scheduler's calls get lost, or take long.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use cotton::mesos::v1::scheduler::Call;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

/// What a master says of a call that it has taken.
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

/// The calls that can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ACCEPT with a task to launch.
    Launch,
    /// KILL.
    Kill,
}

/// What becomes of the next call of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The scheduler gets the answer that it was taken, and the master nothing.
    Lost,
    /// The master gets it when it is let go.
    Held,
}

/// A call that was lost or held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// What it was.
    pub kind: Kind,
    /// The tasks that it names.
    pub tasks: Vec<String>,
}

#[derive(Default)]
struct Plan {
    next: VecDeque<(Kind, Fate)>,
    caught: Vec<Caught>,
}

/// Forwards a scheduler's connections to a master on this machine. On a thread of its own: stories wait for processes without giving way.
pub struct Calls {
    /// `host:port`: where the scheduler is to connect instead.
    pub address: String,
    plan: Arc<Mutex<Plan>>,
    held: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Calls {
    /// Forwards to the master on this port, which need not be there yet.
    pub fn start(master: u16) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let plan = Arc::default();
        let held = watch::Sender::new(true);
        let way = Way {
            master,
            plan: Arc::clone(&plan),
            held: held.subscribe(),
        };
        runtime.spawn(way.serve(listener));
        Self {
            address,
            plan,
            held,
            runtime: Some(runtime),
        }
    }

    /// The next call of this kind gets lost.
    pub fn lose_next(&self, kind: Kind) {
        self.plan.lock().unwrap().next.push_back((kind, Fate::Lost));
    }

    /// The next call of this kind does not arrive before [`Calls::let_go`], which can be said once.
    pub fn hold_next(&self, kind: Kind) {
        self.plan.lock().unwrap().next.push_back((kind, Fate::Held));
    }

    /// What is held arrives.
    pub fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// All that was lost or held, in order.
    pub fn caught(&self) -> Vec<Caught> {
        self.plan.lock().unwrap().caught.clone()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Way {
    master: u16,
    plan: Arc<Mutex<Plan>>,
    held: watch::Receiver<bool>,
}

impl Way {
    async fn serve(self, listener: TcpListener) {
        let listener = AsyncListener::from_std(listener).unwrap();
        while let Ok((client, _)) = listener.accept().await {
            let way = self.clone();
            tokio::spawn(async move {
                if let Ok(master) = TcpStream::connect(("127.0.0.1", way.master)).await {
                    let _ = way.forward(client, master).await;
                }
            });
        }
    }

    /// Until either side has closed the connection.
    async fn forward(mut self, client: TcpStream, master: TcpStream) -> io::Result<()> {
        let (from_client, to_client) = client.into_split();
        let (mut from_master, to_master) = master.into_split();
        let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
        let answers = Arc::clone(&to_client);
        let answers = async move {
            let mut part = vec![0; 64 * 1024];
            loop {
                let length = from_master.read(&mut part).await?;
                if length == 0 {
                    return io::Result::Ok(());
                }
                answers.lock().await.write_all(&part[..length]).await?;
            }
        };
        tokio::select! {
            asked = self.requests(from_client, to_master, &to_client) => asked,
            answered = answers => answered,
        }
    }

    /// A client here asks one thing at a time, so an answer of this proxy's own never comes into another one.
    async fn requests(
        &mut self,
        from_client: OwnedReadHalf,
        mut to_master: OwnedWriteHalf,
        to_client: &tokio::sync::Mutex<OwnedWriteHalf>,
    ) -> io::Result<()> {
        let mut from_client = BufReader::new(from_client);
        while let Some(request) = read_request(&mut from_client).await? {
            match self.fate(&request.body) {
                Some(Fate::Lost) => {
                    to_client.lock().await.write_all(ACCEPTED).await?;
                    continue;
                }
                Some(Fate::Held) => {
                    let _ = self.held.wait_for(|held| !held).await;
                }
                None => {}
            }
            to_master.write_all(&request.head).await?;
            to_master.write_all(&request.body).await?;
        }
        Ok(())
    }

    /// What is to become of a request; it is noted.
    fn fate(&self, body: &[u8]) -> Option<Fate> {
        let (kind, tasks) = what(body)?;
        let mut plan = self.plan.lock().unwrap();
        let place = plan.next.iter().position(|(of, _)| *of == kind)?;
        let (_, fate) = plan.next.remove(place)?;
        plan.caught.push(Caught { kind, tasks });
        Some(fate)
    }
}

/// The kind of a call, if it is one of those, and its tasks.
fn what(body: &[u8]) -> Option<(Kind, Vec<String>)> {
    let call = Call::decode(body).ok()?;
    if let Some(kill) = call.kill {
        return Some((Kind::Kill, vec![kill.task_id.value]));
    }
    let operations = call.accept?.operations.into_iter();
    let launches = operations.filter_map(|operation| operation.launch);
    let tasks = launches.flat_map(|launch| launch.task_infos);
    let tasks: Vec<String> = tasks.map(|task| task.task_id.value).collect();
    (!tasks.is_empty()).then_some((Kind::Launch, tasks))
}

struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// `None`: the client has closed the connection.
async fn read_request(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let begin = head.len();
        if from.read_until(b'\n', &mut head).await? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&head[begin..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(Some(Request { head, body }))
}
