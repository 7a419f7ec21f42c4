//! An agent's connection to its master: registers, reads what the master sends, posts what the
//! agent has to say, and begins again when it breaks.

use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::mpsc;

use crate::mesos::recordio::Decoder;

use super::client;
use super::wire::{REGISTER_PATH, Register, ToAgent, ToMaster};

/// The longest record that a master sends: a launch, with room.
const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// How many messages may wait for the connection.
pub const MAX_WAITING: usize = 1024;

/// How long the first record may take.
const FIRST_RECORD_WITHIN: Duration = Duration::from_secs(30);

/// What comes of a connection.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all of it is messages, which are the large ones"
)]
pub enum News {
    /// The master took the agent; its messages follow.
    Connected {
        /// Which messages of the agent belong to this connection.
        outbox: mpsc::Sender<ToMaster>,
    },
    /// Something from the master.
    Message(ToAgent),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request failed or its answer broke.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The answer is not what a master of the stand-in sends.
    #[error("read what the master sends: {0}")]
    Record(String),
    /// Nothing came, not even a ping, for as long as it takes the master to give the agent up.
    #[error("nothing came from the master for {0:?}")]
    Silent(Duration),
    /// The agent has to go.
    #[error("the master refuses this agent: {0}")]
    Refused(String),
    /// The master ended the connection.
    #[error("the master ended the connection")]
    Ended,
    /// The agent ends.
    #[error("the agent ends")]
    AgentEnds,
}

/// Registers at one master and stays connected; `news` gets everything that arrives, in order.
///
/// # Errors
///
/// Always, in the end: why the connection is no more.
pub async fn stay_connected(
    master: &str,
    register: &Register,
    news: &mpsc::Sender<News>,
) -> Result<(), Error> {
    let url = format!("{master}{REGISTER_PATH}");
    let text = serde_json::to_vec(register).map_err(|error| Error::Record(error.to_string()))?;
    let mut answer = client::post(&url, &[], Bytes::from(text)).await?;
    let link = answer.header("mesos-stream-id").unwrap_or_default();
    let mut decoder = Decoder::new(MAX_RECORD_BYTES);
    let mut poster: Option<mpsc::Sender<ToMaster>> = None;
    let mut patience = FIRST_RECORD_WITHIN;
    loop {
        // A network that is cut off says nothing, and a master that has given the agent up closes a connection that is gone.
        let piece = tokio::time::timeout(patience, answer.next());
        let Some(piece) = piece.await.map_err(|_| Error::Silent(patience))?? else {
            return Err(Error::Ended);
        };
        decoder.feed(&piece);
        while let Some(record) = decoder
            .next()
            .map_err(|error| Error::Record(error.to_string()))?
        {
            let message: ToAgent = serde_json::from_slice(&record)
                .map_err(|error| Error::Record(error.to_string()))?;
            match message {
                ToAgent::Ping => {
                    if let Some(outbox) = &poster {
                        // With a full outbox the master sees that the agent is in trouble.
                        let _ = outbox.try_send(ToMaster::Pong);
                    }
                    continue;
                }
                ToAgent::Refused { reason } => return Err(Error::Refused(reason)),
                ToAgent::Registered {
                    ref agent_id,
                    silence_millis,
                    ..
                } => {
                    patience = Duration::from_millis(silence_millis);
                    let (outbox, inbox) = mpsc::channel(MAX_WAITING);
                    tokio::spawn(post_all(format!("{url}/{agent_id}"), link.clone(), inbox));
                    poster = Some(outbox.clone());
                    let connected = News::Connected { outbox };
                    news.send(connected).await.map_err(|_| Error::AgentEnds)?;
                }
                _ => {}
            }
            news.send(News::Message(message))
                .await
                .map_err(|_| Error::AgentEnds)?;
        }
    }
}

/// Posts messages one after the other. One that cannot be delivered is dropped: statuses are sent
/// again until they are acknowledged, and a new connection begins with all that the agent runs.
async fn post_all(url: String, link: String, mut inbox: mpsc::Receiver<ToMaster>) {
    while let Some(message) = inbox.recv().await {
        let text = match serde_json::to_vec(&message) {
            Ok(text) => Bytes::from(text),
            Err(error) => {
                tracing::error!(%error, "a message for the master cannot be written");
                continue;
            }
        };
        if let Err(error) = client::post(&url, &[("mesos-stream-id", &link)], text).await {
            tracing::warn!(%error, "a message for the master was not delivered");
        }
    }
}

/// How long to wait before the next attempt: the master may just be starting.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
