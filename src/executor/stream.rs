//! The stream in which one executor hands its server's data to another: who may have it, and in which form it travels.
//!
//! Both sides know the administration account's password and the cluster's incarnation, and nobody else does; the
//! stream's key follows from these two. The donor begins with a random number, the receiver answers with one of
//! its own and with a request that is sealed with what follows from both numbers: that proves the receiver, and an old
//! request is of no use. Everything the donor then sends is sealed too (XSalsa20 and Poly1305), piece by piece and
//! counted, so that nobody reads, changes, repeats, reorders or cuts off what travels.
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

use crypto_secretbox::{
    Nonce, XSalsa20Poly1305,
    aead::{Aead as _, KeyInit as _},
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The most data in one frame, in bytes.
pub const PIECE: usize = 64 << 10;

/// The longest box: a full piece, its kind and the box's own 16 bytes.
const LONGEST_BOX: usize = PIECE + 1 + 16;

/// How long a peer may take over one frame. A donor sends at least one in [`ALIVE_EVERY`].
const FRAME_DEADLINE: Duration = Duration::from_secs(60);

/// How long a stranger may take to prove that it is none.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a donor that has no data yet says that it is still at it.
pub const ALIVE_EVERY: Duration = Duration::from_secs(5);

const NUMBER: usize = 32;

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
        "what the other executor sends does not open with this cluster's key; the administration account's password (--admin-keypath) must be the same on all agents"
    )]
    Unsealed,
    /// A frame that no executor sends.
    #[error("the other executor sends a frame that is not one")]
    Malformed,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A piece of the stream.
    Data(Vec<u8>),
    /// There is no data at the moment.
    Alive,
    /// That was all; with what the receiver must know of it.
    End(Vec<u8>),
    /// It could not be completed, with the reason as a sentence.
    Failed(String),
}

impl StreamKey {
    /// The key of a cluster's incarnation.
    pub fn new(password: &Secret, cluster: Uuid) -> Self {
        let label = [b"cotton stream 1".as_slice(), cluster.as_bytes()].concat();
        Self(hmac(password.expose().as_bytes(), &label))
    }

    /// The key for one direction of one connection.
    fn of(&self, direction: &[u8], donors: &[u8; NUMBER], receivers: &[u8; NUMBER]) -> Direction {
        let label = [direction, donors, receivers].concat();
        Direction {
            cipher: XSalsa20Poly1305::new((&*hmac(&*self.0, &label)).into()),
            count: 0,
        }
    }
}

/// HMAC with SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    const BLOCK: usize = 64;
    let mut padded = Zeroizing::new([0u8; BLOCK]);
    if key.len() > BLOCK {
        padded[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        padded[..key.len()].copy_from_slice(key);
    }
    let with = |pad: u8| Zeroizing::new(padded.map(|byte| byte ^ pad));
    let inner = Sha256::new()
        .chain_update(*with(0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(*with(0x5c))
        .chain_update(inner)
        .finalize();
    Zeroizing::new(outer.into())
}

/// What seals or opens the boxes of one direction.
struct Direction {
    cipher: XSalsa20Poly1305,
    count: u64,
}

impl Direction {
    /// The key serves one connection, so the count alone makes each nonce unique.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = Nonce::default();
        nonce[..8].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        nonce
    }

    async fn send(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        plain: &[u8],
    ) -> Result<(), StreamError> {
        let nonce = self.nonce();
        // The executor watches its server on the same thread, and sealing is the work of a slow processor for milliseconds:
        // one piece at a time, however ready the connection is.
        tokio::task::yield_now().await;
        let sealed = self.cipher.encrypt(&nonce, plain);
        let sealed = sealed.map_err(|_| StreamError::Malformed)?;
        let length = u32::try_from(sealed.len()).map_err(|_| StreamError::Malformed)?;
        // At once: a length that is sent alone is answered late, and the box would wait for that.
        let frame = [length.to_be_bytes().as_slice(), &sealed].concat();
        let write = async {
            to.write_all(&frame).await?;
            to.flush().await
        };
        in_time(FRAME_DEADLINE, write).await
    }

    async fn receive(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        within: Duration,
    ) -> Result<Vec<u8>, StreamError> {
        let read = async {
            let mut length = [0; 4];
            from.read_exact(&mut length).await?;
            let length = u32::from_be_bytes(length) as usize;
            if length > LONGEST_BOX {
                return Ok(None);
            }
            let mut sealed = vec![0; length];
            from.read_exact(&mut sealed).await?;
            Ok(Some(sealed))
        };
        let sealed = in_time(within, read).await?.ok_or(StreamError::Malformed)?;
        tokio::task::yield_now().await;
        let nonce = self.nonce();
        self.cipher
            .decrypt(&nonce, sealed.as_slice())
            .map_err(|_| StreamError::Unsealed)
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
    pub async fn send(&mut self, frame: &Frame) -> Result<(), StreamError> {
        let (kind, payload): (u8, &[u8]) = match frame {
            Frame::Data(data) => (0, data),
            Frame::Alive => (1, &[]),
            Frame::End(trailer) => (2, trailer),
            Frame::Failed(why) => (3, why.as_bytes()),
        };
        // What is said of a failure may be cut short; data never is.
        let payload = &payload[..payload.len().min(PIECE)];
        let plain = [&[kind], payload].concat();
        self.direction.send(&mut self.connection, &plain).await
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
        request.send(&mut connection, b"data").await?;
        Ok(Self {
            direction: key.of(b"data", &donors, &receivers),
            connection,
        })
    }

    /// Receives a frame.
    ///
    /// # Errors
    /// When none comes in time, or it is not what the donor has sent as the next one.
    pub async fn receive(&mut self) -> Result<Frame, StreamError> {
        let mut plain = self
            .direction
            .receive(&mut self.connection, FRAME_DEADLINE)
            .await?;
        if plain.is_empty() {
            return Err(StreamError::Malformed);
        }
        let kind = plain.remove(0);
        match kind {
            0 => Ok(Frame::Data(plain)),
            1 => Ok(Frame::Alive),
            2 => Ok(Frame::End(plain)),
            3 => Ok(Frame::Failed(String::from_utf8_lossy(&plain).into_owned())),
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

    /// Goal: it is HMAC. Method: test cases 1 and 6 of RFC 4231.
    #[test]
    fn hmac_is_as_its_specification_says() {
        let first = hmac(&[0x0b; 20], b"Hi There");
        assert_eq!(
            hex::encode(*first),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let sixth = hmac(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
        );
        assert_eq!(
            hex::encode(*sixth),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent() {
        let (sender, receiver) = pair("x", "x").await;
        let (mut sender, mut receiver) = (sender.unwrap(), receiver.unwrap());
        let frames = [
            Frame::Data(vec![7; PIECE]),
            Frame::Alive,
            Frame::Data(vec![]),
            Frame::End(b"{}".to_vec()),
            Frame::Failed("no".into()),
        ];
        for frame in frames {
            sender.send(&frame).await.unwrap();
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
        forged.send(&Frame::Alive).await.unwrap();
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
            sender.send(&Frame::Data(b"row".to_vec())).await.unwrap();
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
            let first = receiver.receive().await;
            let second = receiver.receive().await;
            assert!(first.is_err() || second.is_err(), "{tamper}");
            assert_eq!(first.is_ok(), tamper == "repeat");
        }
    }
}
