//! Passwords at rest: NaCl's secretbox (XSalsa20 and Poly1305) under the scheduler's key.
//!
//! What is stored is base64 of the nonce followed by the box. The nonce is an argument, because it
//! must come from the shell's random source; with 24 random bytes no two boxes share one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The length of the key, in bytes.
pub const KEY_BYTES: usize = 32;
/// The length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 24;

/// The scheduler's key (`--scheduler-keypath`).
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// The content of a key file has the wrong length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the scheduler's key must be exactly 32 bytes long (and may be followed by one newline); it has {0}"
)]
pub struct InvalidKey(usize);

/// Why a sealed password cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was not written by [`seal`].
    #[error("the sealed password is damaged: it is not base64 of a nonce and a box")]
    Malformed,
    /// It was sealed with another key, or changed.
    #[error(
        "the sealed password does not open with this key: give the scheduler the key that it was started with before (--scheduler-keypath)"
    )]
    WrongKey,
}

impl Key {
    /// The key in a file's content; one trailing newline is tolerated.
    pub fn from_file_content(content: &[u8]) -> Result<Self, InvalidKey> {
        let bare = match content {
            // A key of exactly 32 bytes may itself end with a newline byte.
            [bare @ .., b'\n'] if bare.len() == KEY_BYTES => bare,
            all => all,
        };
        let key: [u8; KEY_BYTES] = bare.try_into().map_err(|_| InvalidKey(bare.len()))?;
        Ok(Self(Zeroizing::new(key)))
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new((&*self.0).into())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// Seals `secret`. The nonce must be random and used once.
pub fn seal(key: &Key, secret: &Secret, nonce: [u8; NONCE_BYTES]) -> String {
    let sealed = key
        .cipher()
        .encrypt(Nonce::from_slice(&nonce), secret.expose().as_bytes())
        .expect("encrypting fails only for messages near the size of the address space");
    BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`seal`] made.
pub fn open(key: &Key, sealed: &str) -> Result<Secret, OpenError> {
    let bytes = BASE64_STANDARD
        .decode(sealed)
        .map_err(|_| OpenError::Malformed)?;
    let (nonce, sealed) = bytes
        .split_at_checked(NONCE_BYTES)
        .ok_or(OpenError::Malformed)?;
    let plain = key
        .cipher()
        .decrypt(Nonce::from_slice(nonce), sealed)
        .map_err(|_| OpenError::WrongKey)?;
    let plain = Zeroizing::new(plain);
    let text = std::str::from_utf8(&plain).map_err(|_| OpenError::Malformed)?;
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_file_content(&[byte; KEY_BYTES]).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_only() {
        let sealed = seal(&key(1), &Secret::new("hunter2"), [7; NONCE_BYTES]);
        assert!(!sealed.contains("hunter2"));
        assert_eq!(open(&key(1), &sealed).unwrap(), Secret::new("hunter2"));
        assert_eq!(open(&key(2), &sealed), Err(OpenError::WrongKey));
    }

    #[test]
    fn a_damaged_text_is_refused() {
        let sealed = seal(&key(1), &Secret::new("hunter2"), [7; NONCE_BYTES]);
        for damaged in ["", "x", "*", &sealed[..16]] {
            assert_eq!(
                open(&key(1), damaged),
                Err(OpenError::Malformed),
                "{damaged}"
            );
        }
        let mut bytes = BASE64_STANDARD.decode(&sealed).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(
            open(&key(1), &BASE64_STANDARD.encode(bytes)),
            Err(OpenError::WrongKey)
        );
    }

    #[test]
    fn a_key_file_has_32_bytes_and_perhaps_a_newline() {
        assert!(Key::from_file_content(&[b'x'; 32]).is_ok());
        assert!(Key::from_file_content(&[b'\n'; 32]).is_ok());
        assert!(Key::from_file_content(&[[b'x'; 32].as_slice(), b"\n"].concat()).is_ok());
        for (length, bad) in [
            (0, vec![]),
            (31, vec![b'x'; 31]),
            (34, [[b'x'; 32].as_slice(), b"\n\n"].concat()),
        ] {
            assert_eq!(
                Key::from_file_content(&bad).unwrap_err(),
                InvalidKey(length)
            );
        }
    }
}
