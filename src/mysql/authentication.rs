//! What a server stores in place of a password. Pure.
//!
//! Executors get only this, never the cluster user's password. MariaDB's `mysql_native_password` stores
//! SHA1(SHA1(password)) as `*HEX`. MySQL's `caching_sha2_password` stores `$A$005$`, 20 bytes of salt and 43
//! characters of SHA-256-crypt with 5000 rounds (Drepper, "Unix crypt using SHA-256 and SHA-512"), the only difference
//! being that crypt cuts salts at 16 bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// The rounds of hashing; the `005` in the string means thousands of them.
const ROUNDS: u32 = 5000;

/// Bytes of salt in a string of caching_sha2_password.
pub const SALT_LENGTH: usize = 20;

/// The alphabet of crypt, in its order.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// One password as each flavour stores it.
///
/// Whoever knows it cannot log in with it, but can try passwords: it is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// The string of MySQL's `caching_sha2_password`.
    pub mysql: String,
    /// The string of MariaDB's `mysql_native_password`.
    pub mariadb: String,
}

impl Authentication {
    /// Hashes a password. `random` becomes the salt.
    pub fn of(password: &Secret, random: [u8; SALT_LENGTH]) -> Self {
        let salt = random.map(|byte| ALPHABET[usize::from(byte & 63)]);
        let password = password.expose().as_bytes();
        Self {
            mysql: caching_sha2(password, salt),
            mariadb: native(password),
        }
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authentication(redacted)")
    }
}

fn native(password: &[u8]) -> String {
    // The empty password is stored as nothing at all.
    if password.is_empty() {
        return String::new();
    }
    format!(
        "*{}",
        hex::encode_upper(Sha1::digest(Sha1::digest(password)))
    )
}

fn caching_sha2(password: &[u8], salt: [u8; SALT_LENGTH]) -> String {
    if password.is_empty() {
        return String::new();
    }
    // Salt and hash are of ALPHABET, which is ASCII.
    let salt_text: String = salt.iter().map(|byte| char::from(*byte)).collect();
    format!(
        "$A$005${salt_text}{}",
        encode(&sha256_crypt(password, &salt))
    )
}

/// The steps have the names of Drepper's description.
fn sha256_crypt(key: &[u8], salt: &[u8]) -> [u8; 32] {
    let b = Sha256::new()
        .chain_update(key)
        .chain_update(salt)
        .chain_update(key)
        .finalize();
    let mut a = Sha256::new().chain_update(key).chain_update(salt);
    a.update(repeated(&b, key.len()));
    let mut bits = key.len();
    while bits > 0 {
        a.update(if bits & 1 == 1 { &b[..] } else { key });
        bits >>= 1;
    }
    let mut a: [u8; 32] = a.finalize().into();

    let p = repeated(&Sha256::digest(key.repeat(key.len())), key.len());
    let s = repeated(
        &Sha256::digest(salt.repeat(16 + usize::from(a[0]))),
        salt.len(),
    );
    for round in 0..ROUNDS {
        let odd = round % 2 == 1;
        let mut c = Sha256::new().chain_update(if odd { &p[..] } else { &a[..] });
        if !round.is_multiple_of(3) {
            c.update(&s);
        }
        if !round.is_multiple_of(7) {
            c.update(&p);
        }
        c.update(if odd { &a[..] } else { &p[..] });
        a = c.finalize().into();
    }
    a
}

/// The first `length` bytes of a digest written again and again.
fn repeated(digest: &[u8], length: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(length).collect()
}

/// 32 bytes as 43 characters, in crypt's own order of bytes and bits.
fn encode(digest: &[u8; 32]) -> String {
    let mut text = String::with_capacity(43);
    let mut push = |value: u32, characters: u32| {
        for index in 0..characters {
            text.push(char::from(ALPHABET[(value >> (6 * index) & 63) as usize]));
        }
    };
    let byte = |index: usize| u32::from(digest[index]);
    // Triples of bytes 10 apart; each turn begins with what was the last of the one before.
    let (mut x, mut y, mut z) = (0, 10, 20);
    for _ in 0..10 {
        push(byte(x) << 16 | byte(y) << 8 | byte(z), 4);
        (x, y, z) = (z + 1, x + 1, y + 1);
    }
    push(byte(31) << 8 | byte(30), 3);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_passwords_are_those_of_the_servers_function() {
        // SELECT PASSWORD('pw') on MariaDB 10.11.
        assert_eq!(native(b"pw"), "*D821809F681A40A6E379B50D0463EFAE20BDD122");
        assert_eq!(native(b""), "");
    }

    #[test]
    fn the_hash_is_that_of_crypt() {
        // openssl passwd -5 -salt saltstring; crypt takes no salt of our length.
        let hash = sha256_crypt(b"Hello world!", b"saltstring");
        assert_eq!(encode(&hash), "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5");
    }

    #[test]
    fn strings_have_the_form_that_the_server_checks() {
        let made = Authentication::of(&Secret::new("x".repeat(100)), [0xff; SALT_LENGTH]);
        assert_eq!(made.mysql.len(), 7 + 20 + 43);
        assert!(made.mysql.starts_with("$A$005$zzzzzzzzzzzzzzzzzzzz"));
        assert_eq!(format!("{made:?}"), "Authentication(redacted)");
    }
}
