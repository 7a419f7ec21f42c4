//! From a server's data to the bytes in the store, and back.
//!
//! ```text
//! what makes the data -> blocks of 256 KiB -> zstd -> (encrypted) -> pieces of 256 KiB -> SHA-256  ->  the store
//!       a thread of its own                      another one                         another one     the executor's loop
//! ```
//!
//! Compressing and encrypting is the work of a processor for milliseconds at a time, which the executor's only thread, which watches the
//! server, must not do; so threads do it, reading and the digest beside the compression, which is what takes longest. The queues between them are bounded: a slow store holds the threads
//! up, and they what makes the data. On the way back one thread does all of it, as decompressing costs less.

mod unpacking;

use std::{
    io::{self, BufReader, Read, Write},
    sync::mpsc as threads,
    thread,
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

pub use self::unpacking::{Unpacking, unpack};
use super::cipher::{self, BackupKey, CipherError, Sealer};
use crate::cluster::backup::BackupId;

/// How much is handed over at a time, in bytes.
const PIECE: usize = 256 << 10;

/// How many pieces may wait.
const QUEUE: usize = 4;

/// How many may wait for their digest.
const DIGEST_QUEUE: usize = 2;

/// How many blocks of data may wait to be compressed.
const BLOCK_QUEUE: usize = 2;

/// The level of compression: zstd's own default, which an ordinary disk does not outrun.
const LEVEL: i32 = 3;

/// How long what makes the data may bring nothing. It waits for statements that change tables, and for commits.
pub const STALL: Duration = Duration::from_secs(300);

/// What a backup is encrypted with, if with anything: the key, and the id under which it was made.
pub type Seal = Option<(BackupKey, BackupId)>;

/// A stream was not completed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// What was to bring the data could not, or compressing it failed.
    #[error("the data cannot be read or compressed")]
    Pack(#[source] io::Error),
    /// What is in the store is not what was stored, or what takes the data does not.
    #[error("the backup's data cannot be unpacked")]
    Unpack(#[source] io::Error),
    /// Nothing moves.
    #[error("nothing has moved for {STALL:?}")]
    Stalled,
    /// The thread cannot be started, or has panicked.
    #[error("the thread that compresses cannot work")]
    Thread(#[source] io::Error),
}

/// Some bytes for the store.
#[derive(Debug)]
pub struct Piece {
    /// They.
    pub bytes: Bytes,
    /// How much of the data was read until they were made, in bytes.
    pub read: u64,
}

/// What a stream came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// The size of the data, in bytes.
    pub data_bytes: u64,
    /// The size of what is stored, in bytes.
    pub stored_bytes: u64,
    /// The SHA-256 of what is stored, in hexadecimal.
    pub sha256: String,
}

/// Data that is being packed. Dropping it ends the thread with its next piece.
pub struct Packing {
    expected: u64,
    pieces: mpsc::Receiver<Piece>,
    result: oneshot::Receiver<io::Result<Totals>>,
}

/// Begins to pack what `produce` writes, on a thread.
///
/// # Errors
/// When no thread can be started.
pub fn pack<F>(seal: Seal, produce: F) -> Result<Packing, StreamError>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
{
    let (sender, pieces) = mpsc::channel(QUEUE);
    let (done, result) = oneshot::channel();
    let (shelved, taken) = threads::sync_channel(DIGEST_QUEUE);
    let (blocks, read) = threads::sync_channel(BLOCK_QUEUE);
    let digesting = start("digest", move || digest(taken, sender))?;
    start("pack", move || {
        let packed = pack_all(seal, read, shelved);
        let digested = digesting.join().unwrap_or_else(|_| Err(given_up()));
        let totals = packed.and_then(|data_bytes| {
            let (stored_bytes, sha256) = digested?;
            Ok(Totals {
                data_bytes,
                stored_bytes,
                sha256,
            })
        });
        // Whoever waits for it may be gone.
        let _ = done.send(totals);
    })?;
    start("read", move || read_all(produce, blocks))?;
    Ok(Packing {
        expected: 0,
        pieces,
        result,
    })
}

fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, StreamError> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(StreamError::Thread)
}

/// Copies all of it, in pieces that are worth a call of the system each.
///
/// # Errors
/// When one cannot be read, or the other not be written.
pub fn copy(from: impl Read, to: &mut (impl Write + ?Sized)) -> io::Result<u64> {
    io::copy(&mut BufReader::with_capacity(PIECE, from), to)
}

impl Packing {
    /// The same, where about so many bytes of data are expected. A store may divide them accordingly.
    pub fn expecting(self, bytes: u64) -> Self {
        Self {
            expected: bytes,
            ..self
        }
    }

    /// How many bytes of data are expected, about; 0 if little, or nothing is known.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// The next piece; `None` when there is no more.
    ///
    /// # Errors
    /// [`StreamError::Stalled`].
    pub async fn next(&mut self) -> Result<Option<Piece>, StreamError> {
        tokio::time::timeout(STALL, self.pieces.recv())
            .await
            .map_err(|_| StreamError::Stalled)
    }

    /// What it came to, when there are no more pieces.
    ///
    /// # Errors
    /// When the data did not come to its end.
    pub async fn finish(self) -> Result<Totals, StreamError> {
        drop(self.pieces);
        match self.result.await {
            Ok(result) => result.map_err(StreamError::Pack),
            Err(_) => Err(panicked()),
        }
    }
}

fn panicked() -> StreamError {
    StreamError::Thread(io::Error::other("it has panicked"))
}

/// What is read.
enum Block {
    Data(Vec<u8>),
    /// That was all; or why there is no more.
    End(io::Result<()>),
}

/// Data that is to be compressed, until it is worth being handed over.
struct Blocks {
    waiting: Vec<u8>,
    blocks: threads::SyncSender<Block>,
}

impl Blocks {
    fn hand_over(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        let sent = self.blocks.send(Block::Data(block));
        sent.map_err(|_| given_up())
    }
}

impl Write for Blocks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(PIECE - self.waiting.len());
        self.waiting.extend_from_slice(&data[..taken]);
        if self.waiting.len() == PIECE {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A block goes when it is full.
        Ok(())
    }
}

fn read_all<F>(produce: F, blocks: threads::SyncSender<Block>)
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let mut output = Blocks {
        waiting: Vec::with_capacity(PIECE),
        blocks,
    };
    let produced = produce(&mut output).and_then(|()| output.hand_over());
    // Whoever compresses may have given up.
    let _ = output.blocks.send(Block::End(produced));
}

/// Returns the size of the data.
fn pack_all(
    seal: Seal,
    read: threads::Receiver<Block>,
    shelved: threads::SyncSender<Piece>,
) -> io::Result<u64> {
    let shelf = Shelf {
        sealer: seal.map(|(key, id)| Sealer::new(&key, &id, cipher::nonce())),
        waiting: Vec::with_capacity(2 * PIECE),
        read: 0,
        shelved,
    };
    let mut encoder = zstd::Encoder::new(shelf, LEVEL)?;
    encoder.include_checksum(true)?;
    loop {
        match read.recv() {
            Ok(Block::Data(data)) => {
                encoder.get_mut().read += data.len() as u64;
                encoder.write_all(&data)?;
            }
            Ok(Block::End(how)) => break how?,
            // Its thread has panicked: nobody knows whether that was all.
            Err(_) => return Err(io::Error::other("reading has panicked")),
        }
    }
    let data_bytes = encoder.get_ref().read;
    let mut shelf = encoder.finish()?;
    if let Some(sealer) = shelf.sealer.take() {
        sealer.finish(&mut shelf.waiting).map_err(unusable)?;
    }
    shelf.hand_over(0)?;
    Ok(data_bytes)
}

/// Passes on what comes, and returns its size and its SHA-256.
fn digest(
    taken: threads::Receiver<Piece>,
    sender: mpsc::Sender<Piece>,
) -> io::Result<(u64, String)> {
    let mut digest = Sha256::new();
    let mut stored = 0;
    for piece in taken {
        digest.update(&piece.bytes);
        stored += piece.bytes.len() as u64;
        sender.blocking_send(piece).map_err(|_| given_up())?;
    }
    Ok((stored, hex::encode(digest.finalize())))
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the backup was given up")
}

fn unusable(error: CipherError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Encrypts what was compressed and hands it over.
struct Shelf {
    sealer: Option<Sealer>,
    waiting: Vec<u8>,
    read: u64,
    shelved: threads::SyncSender<Piece>,
}

impl Shelf {
    /// Hands everything over if there is more than `most`.
    fn hand_over(&mut self, most: usize) -> io::Result<()> {
        if self.waiting.len() <= most {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.waiting, Vec::with_capacity(2 * PIECE));
        let piece = Piece {
            bytes: bytes.into(),
            read: self.read,
        };
        self.shelved.send(piece).map_err(|_| given_up())
    }
}

impl Write for Shelf {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.sealer {
            Some(sealer) => sealer.seal(data, &mut self.waiting).map_err(unusable)?,
            None => self.waiting.extend_from_slice(data),
        }
        self.hand_over(PIECE)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::keyfile::SchedulerKey;

    fn seal(byte: u8) -> Seal {
        let key = BackupKey::new(SchedulerKey::from_bytes([byte; 32]));
        Some((key, "a/b".parse().unwrap()))
    }

    /// Data that compresses to about half.
    fn data(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8 & 15
        };
        (0..length).map(|_| next()).collect()
    }

    async fn packed(data: Vec<u8>, seal: Seal) -> (Vec<u8>, Totals) {
        let mut packing = pack(seal, move |to| to.write_all(&data)).unwrap();
        let mut stored = Vec::new();
        let mut read = 0;
        while let Some(piece) = packing.next().await.unwrap() {
            assert!(piece.read >= read);
            read = piece.read;
            stored.extend(piece.bytes);
        }
        (stored, packing.finish().await.unwrap())
    }

    async fn unpacked(stored: &[u8], seal: Seal) -> Result<(Vec<u8>, Totals), StreamError> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&found);
        let consume =
            move |from: &mut dyn Read| from.read_to_end(&mut into.lock().unwrap()).map(|_| ());
        let unpacking = unpack(seal, consume)?;
        for piece in stored.chunks(100_000) {
            if !unpacking.put(Bytes::copy_from_slice(piece)).await? {
                break;
            }
        }
        let totals = unpacking.finish().await?;
        let found = found.lock().unwrap().clone();
        Ok((found, totals))
    }

    #[tokio::test]
    async fn what_was_packed_is_unpacked() {
        for length in [0, 1, 100_000, 5 << 20] {
            for seal in [None, seal(1)] {
                let data = data(length);
                let (stored, totals) = packed(data.clone(), seal.clone()).await;
                assert_eq!(totals.stored_bytes, stored.len() as u64);
                assert_eq!(totals.sha256, hex::encode(Sha256::digest(&stored)));
                let (found, read) = unpacked(&stored, seal).await.unwrap();
                assert_eq!((found == data, read), (true, totals));
            }
        }
    }

    /// Goal: damage is an error, or the digest tells it. Method: each kind of damage, with and without a key.
    #[tokio::test]
    async fn damage_is_noticed() {
        for seal in [None, seal(1)] {
            let (good, totals) = packed(data(1 << 20), seal.clone()).await;
            let changed = |at: usize| {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                bytes
            };
            let table = [
                ("empty", Vec::new()),
                ("first byte", changed(0)),
                ("middle", changed(good.len() / 2)),
                ("last byte", changed(good.len() - 1)),
                ("half", good[..good.len() / 2].to_vec()),
                ("one byte less", good[..good.len() - 1].to_vec()),
                ("more behind", [good.as_slice(), b"more"].concat()),
            ];
            for (what, bytes) in table {
                let intact = match unpacked(&bytes, seal.clone()).await {
                    Ok((_, read)) => read == totals,
                    Err(_) => false,
                };
                assert!(!intact, "{what}, encrypted: {}", seal.is_some());
            }
        }
    }

    #[tokio::test]
    async fn another_key_and_no_key_are_refused_with_a_sentence() {
        let (sealed, _) = packed(data(100_000), seal(1)).await;
        let error = unpacked(&sealed, seal(2)).await.unwrap_err();
        let text = crate::executor::chain(&error);
        assert!(text.contains("does not open with this key"), "{text}");
        assert!(unpacked(&sealed, None).await.is_err());
        let (plain, _) = packed(data(100_000), None).await;
        let error = unpacked(&plain, seal(1)).await.unwrap_err();
        let text = crate::executor::chain(&error);
        assert!(text.contains("does not begin as encrypted data"), "{text}");
    }

    #[tokio::test]
    async fn a_producer_that_fails_and_a_reader_that_leaves_are_told() {
        let mut packing = pack(None, |to| {
            to.write_all(b"begun")?;
            Err(io::Error::other("the tool has failed"))
        })
        .unwrap();
        while packing.next().await.unwrap().is_some() {}
        let error = packing.finish().await.unwrap_err();
        assert!(crate::executor::chain(&error).contains("the tool has failed"));

        let (told, ended) = oneshot::channel();
        let endless = pack(None, move |to| {
            let noise = data(1 << 20);
            let error = loop {
                if let Err(error) = to.write_all(&noise) {
                    break error;
                }
            };
            let _ = told.send(error.kind());
            Err(error)
        })
        .unwrap();
        drop(endless);
        assert_eq!(ended.await.unwrap(), io::ErrorKind::BrokenPipe);
    }

    /// Goal: a slow store holds up what reads the data, so that memory is bounded. Method: nothing is taken of far more than fits into the queues until
    /// nothing moves, then everything.
    #[tokio::test]
    async fn a_slow_store_holds_up_what_reads() {
        const MORE_THAN_FITS: usize = 24 << 20;
        const FITS: usize = 8 << 20;
        let written = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&written);
        let mut packing = pack(None, move |to| {
            for piece in data(MORE_THAN_FITS).chunks(100_000) {
                to.write_all(piece)?;
                counted.fetch_add(piece.len(), Ordering::Relaxed);
            }
            Ok(())
        })
        .unwrap();
        let stands_still = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = written.load(Ordering::Relaxed);
                if now > 0 && now == before {
                    return now;
                }
                before = now;
            }
        };
        let stands_still = tokio::time::timeout(Duration::from_secs(60), stands_still);
        let before = stands_still.await.unwrap();
        assert!(before < FITS, "{before} bytes");
        while packing.next().await.unwrap().is_some() {}
        let totals = packing.finish().await.unwrap();
        assert_eq!(totals.data_bytes, MORE_THAN_FITS as u64);
    }
}
