//! From the bytes in the store to a server's data.

use std::{
    io::{self, BufReader, Read},
    thread,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::{PIECE, QUEUE, STALL, Seal, StreamError, Totals, panicked, unusable};
use crate::backup::cipher::Opener;

/// The largest window that data from a store may ask for, as a power of two: 8 MiB of memory, four times what backups are
/// compressed with.
const LARGEST_WINDOW: u32 = 23;

/// Data that is being unpacked. Dropping it ends the thread with an error.
pub struct Unpacking {
    pieces: mpsc::Sender<Option<Bytes>>,
    result: oneshot::Receiver<io::Result<Totals>>,
}

/// Begins to unpack on a thread; `consume` reads the data.
///
/// What it reads is not known to be whole before [`Unpacking::finish`] has said so.
///
/// # Errors
/// When no thread can be started.
pub fn unpack<F>(seal: Seal, consume: F) -> Result<Unpacking, StreamError>
where
    F: FnOnce(&mut dyn Read) -> io::Result<()> + Send + 'static,
{
    let (pieces, receiver) = mpsc::channel(QUEUE);
    let (done, result) = oneshot::channel();
    let work = move || {
        // Whoever waits for it may be gone.
        let _ = done.send(unpack_all(seal, consume, receiver));
    };
    thread::Builder::new()
        .name("unpack".to_owned())
        .spawn(work)
        .map_err(StreamError::Thread)?;
    Ok(Unpacking { pieces, result })
}

impl Unpacking {
    /// Hands bytes from the store over. `false`: nobody takes them any more, and [`finish`](Self::finish) says why.
    ///
    /// # Errors
    /// [`StreamError::Stalled`].
    pub async fn put(&self, bytes: Bytes) -> Result<bool, StreamError> {
        let sent = tokio::time::timeout(STALL, self.pieces.send(Some(bytes))).await;
        Ok(sent.map_err(|_| StreamError::Stalled)?.is_ok())
    }

    /// Says that this was all, and waits until it is unpacked. The size and the digest of what was read come back.
    ///
    /// # Errors
    /// When it was damaged or cut off, the key is wrong, or what takes the data does not.
    pub async fn finish(self) -> Result<Totals, StreamError> {
        // Who has ended already does not take it.
        let _ = self.pieces.send(None).await;
        match self.result.await {
            Ok(result) => result.map_err(StreamError::Unpack),
            Err(_) => Err(panicked()),
        }
    }
}

fn unpack_all<F>(
    seal: Seal,
    consume: F,
    pieces: mpsc::Receiver<Option<Bytes>>,
) -> io::Result<Totals>
where
    F: FnOnce(&mut dyn Read) -> io::Result<()>,
{
    let stored = Stored {
        pieces,
        piece: Bytes::new(),
        opener: seal.map(|(key, id)| Opener::new(&key, &id)),
        opened: Vec::new(),
        taken: 0,
        ended: false,
        digest: Sha256::new(),
        read: 0,
    };
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(PIECE, stored))?;
    decoder.window_log_max(LARGEST_WINDOW)?;
    let mut output = Output { decoder, bytes: 0 };
    consume(&mut output)?;
    // What nobody was interested in counts in the digest, too.
    io::copy(&mut output, &mut io::sink())?;
    let stored = output.decoder.finish().into_inner();
    Ok(Totals {
        data_bytes: output.bytes,
        stored_bytes: stored.read,
        sha256: hex::encode(stored.digest.finalize()),
    })
}

/// Counts what was decompressed.
struct Output {
    decoder: zstd::Decoder<'static, BufReader<Stored>>,
    bytes: u64,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(buffer)?;
        self.bytes += length as u64;
        Ok(length)
    }
}

/// What comes from the store, decrypted.
struct Stored {
    pieces: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    opener: Option<Opener>,
    opened: Vec<u8>,
    taken: usize,
    ended: bool,
    digest: Sha256,
    read: u64,
}

impl Stored {
    /// Gets more; at the end there is none.
    fn fill(&mut self) -> io::Result<()> {
        let Some(piece) = self.pieces.blocking_recv() else {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "reading from the store was given up",
            ));
        };
        self.opened.clear();
        self.taken = 0;
        let Some(piece) = piece else {
            self.ended = true;
            return match self.opener.take() {
                Some(opener) => opener.finish(&mut self.opened).map_err(unusable),
                None => Ok(()),
            };
        };
        self.digest.update(&piece);
        self.read += piece.len() as u64;
        match &mut self.opener {
            Some(opener) => opener.open(&piece, &mut self.opened).map_err(unusable),
            None => {
                self.piece = piece;
                Ok(())
            }
        }
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.piece.is_empty() {
                let length = buffer.len().min(self.piece.len());
                buffer[..length].copy_from_slice(&self.piece.split_to(length));
                return Ok(length);
            }
            let rest = &self.opened[self.taken..];
            if !rest.is_empty() {
                let length = buffer.len().min(rest.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.taken += length;
                return Ok(length);
            }
            if self.ended {
                return Ok(0);
            }
            self.fill()?;
        }
    }
}
