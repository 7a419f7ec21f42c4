//! Encrypting a stream so that whoever reads it notices everything that was changed, reordered or cut off.
//!
//! The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, 2015) of the `aead` crate over XSalsa20 and Poly1305, which
//! the streams between executors use too. The key of a backup is derived from the key file and the backup's id, so that one backup
//! cannot be put in the place of another.
//!
//! ```text
//! "COTTON1\n"   19 random bytes   boxes of 64 KiB and 16 bytes each, the last one shorter or as long, and marked as the last
//! ```

use aead::stream::{DecryptorBE32, EncryptorBE32};
use crypto_secretbox::{XSalsa20Poly1305, aead::KeyInit as _};
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{cluster::backup::BackupId, keyfile::SchedulerKey};

/// What an encrypted stream begins with.
const MAGIC: &[u8; 8] = b"COTTON1\n";

/// The bytes of the nonce that are chosen by chance; a count and the mark of the last box make the rest.
const NONCE: usize = 19;

/// What is encrypted at a time, in bytes. The count of boxes has 32 bits, which is 256 TiB.
const PLAIN: usize = 64 << 10;

/// The same with what authenticates it.
const BOX: usize = PLAIN + 16;

/// The key that backups are encrypted with (`key` of `--backup-store-args`): 32 bytes.
#[derive(Debug, Clone)]
pub struct BackupKey(SchedulerKey);

/// A stream cannot be encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// It does not begin as an encrypted stream does.
    #[error("the backup's data does not begin as encrypted data does: it was damaged or replaced")]
    Header,
    /// A box does not open.
    #[error(
        "the backup's data does not open with this key: it was damaged or cut off, or the key file is not the one that it was made with"
    )]
    Unsealed,
    /// More data than the count can tell apart.
    #[error("the data is too large for one encrypted stream")]
    TooLong,
}

impl BackupKey {
    /// A key from its file.
    pub fn new(key: SchedulerKey) -> Self {
        Self(key)
    }

    /// What tells this key from others, and nothing about it: the beginning of a digest, in hexadecimal.
    pub fn id(&self) -> String {
        let digest = Sha256::new()
            .chain_update(b"cotton backup key id")
            .chain_update(self.0.expose())
            .finalize();
        hex::encode(&digest[..8])
    }

    fn cipher(&self, id: &BackupId, nonce: &[u8; NONCE]) -> XSalsa20Poly1305 {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.0.expose())
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        mac.update(b"cotton backup 1");
        mac.update(nonce);
        mac.update(id.as_str().as_bytes());
        let key = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
        XSalsa20Poly1305::new((&*key).into())
    }
}

/// Encrypts a stream, piece by piece.
pub struct Sealer {
    stream: EncryptorBE32<XSalsa20Poly1305>,
    plain: Vec<u8>,
    header: Vec<u8>,
}

impl Sealer {
    /// Begins the stream of a backup with that nonce, which is never used twice with a key.
    pub fn new(key: &BackupKey, id: &BackupId, nonce: [u8; NONCE]) -> Self {
        let cipher = key.cipher(id, &nonce);
        Self {
            stream: EncryptorBE32::from_aead(cipher, (&nonce).into()),
            plain: Vec::with_capacity(PLAIN),
            header: [MAGIC.as_slice(), &nonce].concat(),
        }
    }

    /// Takes data in; what is ready to be stored is added to `out`.
    ///
    /// # Errors
    /// [`CipherError::TooLong`].
    pub fn seal(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        out.append(&mut self.header);
        while !data.is_empty() {
            if self.plain.len() == PLAIN {
                // It is not the last box, as there is more.
                let sealed = self.stream.encrypt_next(self.plain.as_slice());
                out.extend(sealed.map_err(|_| CipherError::TooLong)?);
                self.plain.clear();
            }
            let taken = data.len().min(PLAIN - self.plain.len());
            self.plain.extend_from_slice(&data[..taken]);
            data = &data[taken..];
        }
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`CipherError::TooLong`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), CipherError> {
        out.append(&mut self.header);
        let sealed = self.stream.encrypt_last(self.plain.as_slice());
        out.extend(sealed.map_err(|_| CipherError::TooLong)?);
        Ok(())
    }
}

/// Decrypts a stream, piece by piece. Nothing is given out that was not authenticated.
pub struct Opener {
    key: BackupKey,
    id: BackupId,
    stream: Option<DecryptorBE32<XSalsa20Poly1305>>,
    sealed: Vec<u8>,
}

impl Opener {
    /// Begins to read the stream of a backup.
    pub fn new(key: &BackupKey, id: &BackupId) -> Self {
        Self {
            key: key.clone(),
            id: id.clone(),
            stream: None,
            sealed: Vec::with_capacity(BOX),
        }
    }

    /// Takes data in; what is authentic is added to `out`.
    ///
    /// # Errors
    /// When it is not.
    pub fn open(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        const HEADER: usize = MAGIC.len() + NONCE;
        while !data.is_empty() {
            let full = if self.stream.is_some() { BOX } else { HEADER };
            if self.sealed.len() == full {
                match &mut self.stream {
                    Some(stream) => {
                        let plain = stream.decrypt_next(self.sealed.as_slice());
                        out.extend(plain.map_err(|_| CipherError::Unsealed)?);
                    }
                    None => self.stream = Some(self.begin()?),
                }
                self.sealed.clear();
                continue;
            }
            let taken = data.len().min(full - self.sealed.len());
            self.sealed.extend_from_slice(&data[..taken]);
            data = &data[taken..];
        }
        Ok(())
    }

    fn begin(&self) -> Result<DecryptorBE32<XSalsa20Poly1305>, CipherError> {
        let nonce = self.sealed.strip_prefix(MAGIC).ok_or(CipherError::Header)?;
        let nonce = <[u8; NONCE]>::try_from(nonce).map_err(|_| CipherError::Header)?;
        let cipher = self.key.cipher(&self.id, &nonce);
        Ok(DecryptorBE32::from_aead(cipher, (&nonce).into()))
    }

    /// Ends the stream: what was read last must be marked as the last.
    ///
    /// # Errors
    /// When it is not, because something was cut off.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), CipherError> {
        let stream = self.stream.ok_or(CipherError::Header)?;
        let plain = stream.decrypt_last(self.sealed.as_slice());
        out.extend(plain.map_err(|_| CipherError::Unsealed)?);
        Ok(())
    }
}

/// A new nonce, by chance.
pub fn nonce() -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    rand::fill(&mut nonce);
    nonce
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn key(byte: u8) -> BackupKey {
        BackupKey::new(SchedulerKey::from_bytes([byte; 32]))
    }

    fn id(text: &str) -> BackupId {
        text.parse().unwrap()
    }

    fn sealed(plain: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sealer = Sealer::new(&key(1), &id("a/b"), [9; NONCE]);
        for piece in plain.chunks(piece) {
            sealer.seal(piece, &mut out).unwrap();
        }
        sealer.finish(&mut out).unwrap();
        out
    }

    fn opened(
        sealed: &[u8],
        key: &BackupKey,
        id: &BackupId,
        piece: usize,
    ) -> Result<Vec<u8>, CipherError> {
        let mut out = Vec::new();
        let mut opener = Opener::new(key, id);
        for piece in sealed.chunks(piece) {
            opener.open(piece, &mut out)?;
        }
        opener.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_was_sealed_is_opened_however_it_is_cut_into_pieces() {
        for length in [0, 1, PLAIN - 1, PLAIN, PLAIN + 1, 2 * PLAIN, 3 * PLAIN + 7] {
            let plain: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            for piece in [1 << 10, PLAIN, BOX, 1 << 20] {
                let sealed = sealed(&plain, piece);
                for piece in [27, 4 << 10, 1 << 20] {
                    assert_eq!(
                        opened(&sealed, &key(1), &id("a/b"), piece).unwrap(),
                        plain,
                        "{length}"
                    );
                }
            }
        }
    }

    /// Goal: nothing can be changed unseen. Method: each kind of change, of a stream with several boxes.
    #[test]
    fn changes_are_noticed() {
        let good = sealed(&[7; 3 * PLAIN], PLAIN);
        let begin = MAGIC.len() + NONCE;
        let changed = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let mut swapped = good.clone();
        swapped[begin..begin + 2 * BOX].rotate_left(BOX);
        let table: Vec<(&str, Vec<u8>)> = vec![
            ("magic", changed(0)),
            ("nonce", changed(MAGIC.len())),
            ("first box", changed(begin)),
            ("last byte", changed(good.len() - 1)),
            ("empty", Vec::new()),
            ("header only", good[..begin].to_vec()),
            ("cut in a box", good[..begin + 100].to_vec()),
            ("cut between boxes", good[..begin + BOX].to_vec()),
            ("last byte gone", good[..good.len() - 1].to_vec()),
            ("more behind", [good.as_slice(), b"x"].concat()),
            ("boxes swapped", swapped),
        ];
        for (what, bytes) in table {
            assert!(opened(&bytes, &key(1), &id("a/b"), 1000).is_err(), "{what}");
        }
        assert_eq!(
            opened(&good, &key(2), &id("a/b"), 1000),
            Err(CipherError::Unsealed)
        );
        assert_eq!(
            opened(&good, &key(1), &id("a/c"), 1000),
            Err(CipherError::Unsealed)
        );
    }

    #[test]
    fn a_keys_id_tells_it_from_others() {
        assert_ne!(key(1).id(), key(2).id());
        assert_eq!((key(1).id(), key(1).id().len()), (key(1).id(), 16));
    }
}
