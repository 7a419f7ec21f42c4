//! The stream in which one executor hands its server's data to another: who may have it, and in which form it travels.
//!
//! Both sides know the administration account's password and the cluster's incarnation, and nobody else does; the
//! stream's key follows from these two. The donor begins with a random number, the receiver answers with one of
//! its own and with a request that is sealed with what follows from both numbers: that proves the receiver, and an old
//! request is of no use. Everything the donor then sends is sealed too (AES-256 in Galois/Counter Mode, for which processors have
//! instructions: a copy is not to be held up by it), piece by piece and counted, so that nobody reads, changes, repeats, reorders or cuts off what travels.
//!
//! ```text
//! donor    -> receiver   32 random bytes
//! receiver -> donor      32 random bytes, a sealed request
//! donor    -> receiver   sealed frames: data..., alive (while there is no data), and at last end or failed
//! ```
//!
//! A frame is its length (4 bytes, big-endian) and its box. It is read and written under a deadline, so that a peer that
//! hangs ends the stream.

use std::{io, time::Duration};

use hmac::{Hmac, Mac as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The most data in one frame, in bytes.
pub const PIECE: usize = 256 << 10;

/// The bytes of a frame's length.
const LENGTH: usize = 4;

/// The longest box: a full piece, its kind and the box's own 16 bytes.
const LONGEST_BOX: usize = PIECE + 1 + 16;

/// How long a peer may take over one frame. A donor sends at least one in [`ALIVE_EVERY`].
const FRAME_DEADLINE: Duration = Duration::from_secs(60);

/// How long a stranger may take to prove that it is none.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a donor that has no data yet says that it is still at it.
pub const ALIVE_EVERY: Duration = Duration::from_secs(5);

const NUMBER: usize = 32;

/// The kind of a receiver's request, as if it were a frame.
const REQUEST: u8 = 0;

/// What all streams of a cluster are protected with.
#[derive(Clone)]
pub struct StreamKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKey(..)")
    }
}

/// A stream was not established or has broken off.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection failed.
    #[error("the connection to the other executor failed")]
    Connection(#[from] io::Error),
    /// Nothing came, or nothing was taken.
    #[error("the other executor was silent for {0:?}")]
    Silent(Duration),
    /// The other side has another key, or somebody has changed what was sent.
    #[error(
        "what the other executor sends does not open with this cluster's key; the administration account's password (--admin-keypath) must be the same on all agents, and both executors of versions that seal alike: cotton admin restart brings a member up to date"
    )]
    Unsealed,
    /// A frame that no executor sends.
    #[error("the other executor sends a frame that is not one")]
    Malformed,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of the stream.
    Data(&'a [u8]),
    /// There is no data at the moment.
    Alive,
    /// That was all; with what the receiver must know of it.
    End(&'a [u8]),
    /// It could not be completed, with the reason as a sentence.
    Failed(&'a str),
}

impl StreamKey {
    /// The key of a cluster's incarnation.
    pub fn new(password: &Secret, cluster: Uuid) -> Self {
        let key = password.expose().as_bytes();
        Self(derived(key, &[b"cotton stream 2", cluster.as_bytes()]))
    }

    /// The key for one direction of one connection.
    fn of(&self, direction: &[u8], donors: &[u8; NUMBER], receivers: &[u8; NUMBER]) -> Direction {
        let key = derived(&*self.0, &[direction, donors, receivers]);
        let key = UnboundKey::new(&AES_256_GCM, &*key)
            .unwrap_or_else(|_| unreachable!("AES-256 has keys of 32 bytes"));
        Direction {
            key: LessSafeKey::new(key),
            count: 0,
            buffer: Vec::new(),
        }
    }
}

/// A key that follows from another one: HMAC with SHA-256 of these texts.
fn derived(key: &[u8], texts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(key)
        .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    for text in texts {
        mac.update(text);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Seals or opens the boxes of one direction.
struct Direction {
    key: LessSafeKey,
    count: u64,
    /// The frame that is sent, or the box that was received last: gigabytes pass through it.
    buffer: Vec<u8>,
}

impl Direction {
    /// The key serves one connection, so the count alone makes each nonce unique.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    async fn send(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        kind: u8,
        payload: &[u8],
    ) -> Result<(), StreamError> {
        let nonce = self.nonce();
        // The executor watches its server on the same thread, and sealing is work of a processor: one piece at a
        // time, however ready the connection is.
        tokio::task::yield_now().await;
        let frame = &mut self.buffer;
        frame.clear();
        frame.extend([0; LENGTH]);
        frame.push(kind);
        frame.extend(payload);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut frame[LENGTH..])
            .map_err(|_| StreamError::Malformed)?;
        frame.extend(tag.as_ref());
        let length = u32::try_from(frame.len() - LENGTH).map_err(|_| StreamError::Malformed)?;
        frame[..LENGTH].copy_from_slice(&length.to_be_bytes());
        // At once: a length that is sent alone is answered late, and the box would wait for that.
        let write = async {
            to.write_all(frame).await?;
            to.flush().await
        };
        in_time(FRAME_DEADLINE, write).await
    }

    /// The kind of a frame, and what is in it.
    async fn receive(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        within: Duration,
    ) -> Result<(u8, &[u8]), StreamError> {
        let nonce = self.nonce();
        let sealed = &mut self.buffer;
        let read = async {
            let mut length = [0; LENGTH];
            from.read_exact(&mut length).await?;
            let length = u32::from_be_bytes(length) as usize;
            if length > LONGEST_BOX {
                return Ok(None);
            }
            // It grows to the longest box that comes, and no byte is written twice.
            if sealed.len() < length {
                sealed.resize(length, 0);
            }
            from.read_exact(&mut sealed[..length]).await?;
            Ok(Some(length))
        };
        let length = in_time(within, read).await?.ok_or(StreamError::Malformed)?;
        tokio::task::yield_now().await;
        let plain = self
            .key
            .open_in_place(nonce, Aad::empty(), &mut self.buffer[..length])
            .map_err(|_| StreamError::Unsealed)?;
        match &*plain {
            [kind, payload @ ..] => Ok((*kind, payload)),
            [] => Err(StreamError::Malformed),
        }
    }
}

async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, StreamError> {
    match timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StreamError::Silent(limit)),
    }
}

/// The donor's end of a stream whose receiver has proven itself.
pub struct Sender<C> {
    connection: C,
    direction: Direction,
}

/// The receiver's end of a stream.
pub struct Receiver<C> {
    connection: C,
    direction: Direction,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Sender<C> {
    /// Lets a receiver prove itself.
    ///
    /// # Errors
    /// When it does not within a few seconds.
    pub async fn accept(mut connection: C, key: &StreamKey) -> Result<Self, StreamError> {
        let mut donors = [0; NUMBER];
        rand::fill(&mut donors);
        let mut receivers = [0; NUMBER];
        in_time(HANDSHAKE_DEADLINE, async {
            connection.write_all(&donors).await?;
            connection.flush().await?;
            connection.read_exact(&mut receivers).await
        })
        .await?;
        let mut request = key.of(b"request", &donors, &receivers);
        // That it opens is all that is asked of it.
        request.receive(&mut connection, HANDSHAKE_DEADLINE).await?;
        Ok(Self {
            direction: key.of(b"data", &donors, &receivers),
            connection,
        })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the receiver does not take it in time.
    pub async fn send(&mut self, frame: Frame<'_>) -> Result<(), StreamError> {
        let (kind, payload): (u8, &[u8]) = match frame {
            Frame::Data(data) => (0, data),
            Frame::Alive => (1, &[]),
            Frame::End(trailer) => (2, trailer),
            // What is said of a failure may be cut short; data never is.
            Frame::Failed(why) => (3, &why.as_bytes()[..why.floor_char_boundary(PIECE)]),
        };
        let to = &mut self.connection;
        self.direction.send(to, kind, payload).await
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Receiver<C> {
    /// Proves itself to a donor.
    ///
    /// # Errors
    /// When the donor does not answer. One with another key is noticed with the first frame.
    pub async fn connect(mut connection: C, key: &StreamKey) -> Result<Self, StreamError> {
        let mut receivers = [0; NUMBER];
        rand::fill(&mut receivers);
        let mut donors = [0; NUMBER];
        in_time(HANDSHAKE_DEADLINE, async {
            connection.read_exact(&mut donors).await?;
            connection.write_all(&receivers).await
        })
        .await?;
        let mut request = key.of(b"request", &donors, &receivers);
        request.send(&mut connection, REQUEST, b"data").await?;
        Ok(Self {
            direction: key.of(b"data", &donors, &receivers),
            connection,
        })
    }

    /// Receives a frame.
    ///
    /// # Errors
    /// When none comes in time, or it is not what the donor has sent as the next one.
    pub async fn receive(&mut self) -> Result<Frame<'_>, StreamError> {
        let from = &mut self.connection;
        match self.direction.receive(from, FRAME_DEADLINE).await? {
            (0, data) => Ok(Frame::Data(data)),
            (1, _) => Ok(Frame::Alive),
            (2, trailer) => Ok(Frame::End(trailer)),
            (3, why) => {
                let why = str::from_utf8(why).map_err(|_| StreamError::Malformed)?;
                Ok(Frame::Failed(why))
            }
            _ => Err(StreamError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const CLUSTER: Uuid = Uuid::from_u128(7);

    fn key(password: &str) -> StreamKey {
        StreamKey::new(&Secret::new(password), CLUSTER)
    }

    async fn pair(
        donors: &str,
        receivers: &str,
    ) -> (
        Result<Sender<DuplexStream>, StreamError>,
        Result<Receiver<DuplexStream>, StreamError>,
    ) {
        let (a, b) = duplex(1 << 20);
        let (donors, receivers) = (key(donors), key(receivers));
        tokio::join!(Sender::accept(a, &donors), Receiver::connect(b, &receivers))
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent() {
        let (sender, receiver) = pair("x", "x").await;
        let (mut sender, mut receiver) = (sender.unwrap(), receiver.unwrap());
        let piece = vec![7; PIECE];
        let frames = [
            Frame::Data(&piece),
            Frame::Alive,
            Frame::Data(&[]),
            Frame::End(b"{}"),
            Frame::Failed("no"),
        ];
        for frame in frames {
            sender.send(frame).await.unwrap();
            assert_eq!(receiver.receive().await.unwrap(), frame);
        }
    }

    #[tokio::test]
    async fn a_stranger_gets_nothing() {
        let (sender, _) = pair("the password", "another").await;
        assert!(matches!(sender, Err(StreamError::Unsealed)));
    }

    /// Goal: a donor that is none is noticed. Method: one that accepts everybody and seals with its own key.
    #[tokio::test]
    async fn a_false_donor_is_not_believed() {
        let (mut a, b) = duplex(1 << 20);
        let receiver = tokio::spawn(async move { Receiver::connect(b, &key("x")).await });
        let donors = [1; NUMBER];
        a.write_all(&donors).await.unwrap();
        let mut receivers = [0; NUMBER];
        a.read_exact(&mut receivers).await.unwrap();
        let mut forged = Sender {
            direction: key("y").of(b"data", &donors, &receivers),
            connection: a,
        };
        let mut receiver = receiver.await.unwrap().unwrap();
        forged.send(Frame::Alive).await.unwrap();
        assert!(matches!(
            receiver.receive().await,
            Err(StreamError::Unsealed)
        ));
    }

    /// Goal: what was sent cannot be changed, repeated or cut off unseen.
    #[tokio::test]
    async fn tampering_is_noticed() {
        for tamper in ["change", "repeat", "cut"] {
            let (a, mut wire) = duplex(1 << 20);
            let (mut other, b) = duplex(1 << 20);
            let (donors, receivers) = ([1; NUMBER], [2; NUMBER]);
            let mut sender = Sender {
                direction: key("x").of(b"data", &donors, &receivers),
                connection: a,
            };
            let mut receiver = Receiver {
                direction: key("x").of(b"data", &donors, &receivers),
                connection: b,
            };
            sender.send(Frame::Data(b"row")).await.unwrap();
            drop(sender);
            let mut bytes = Vec::new();
            wire.read_to_end(&mut bytes).await.unwrap();
            match tamper {
                "change" => bytes[10] ^= 1,
                "repeat" => bytes.extend(bytes.clone()),
                _ => bytes.truncate(bytes.len() - 1),
            }
            other.write_all(&bytes).await.unwrap();
            drop(other);
            let first = receiver.receive().await.is_ok();
            let second = receiver.receive().await.is_ok();
            assert!(!first || !second, "{tamper}");
            assert_eq!(first, tamper == "repeat");
        }
    }
}
