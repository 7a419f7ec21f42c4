//! Free ports.

use std::io;
use std::net::TcpListener;

use anyhow::Context as _;

/// How many ports a block has; the first one is held as its lock.
const BLOCK_LENGTH: u16 = 100;

/// Blocks lie below the ports that the kernel gives to outgoing connections (32768 and up).
const FIRST_BLOCK: u16 = 20_000;
const BLOCKS: u16 = 120;

/// A block of ports for agents. Agents have different addresses and share it.
#[derive(Debug)]
pub struct Block {
    _lock: TcpListener,
    first: u16,
}

impl Block {
    /// Takes a block that nobody uses.
    ///
    /// # Errors
    ///
    /// All blocks are in use.
    pub fn take() -> io::Result<Self> {
        let start = rand::random_range(0..BLOCKS);
        for offset in 0..BLOCKS {
            let first = FIRST_BLOCK + (start + offset) % BLOCKS * BLOCK_LENGTH;
            if let Ok(lock) = TcpListener::bind(("127.0.0.1", first)) {
                return Ok(Self { _lock: lock, first });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "all blocks of ports are in use",
        ))
    }

    /// The ports for agents.
    pub fn range(&self) -> String {
        format!("{}-{}", self.first + 1, self.first + BLOCK_LENGTH - 1)
    }
}

/// Ports of what is there once are drawn from here: below the blocks, and so below the ports of outgoing connections, one of which could
/// have it by the time that it is wanted.
const SINGLE: std::ops::Range<u16> = 10_000..FIRST_BLOCK;

/// The given port, or one that is free now.
///
/// # Errors
///
/// No port is free.
pub fn given_or_free(given: Option<u16>) -> anyhow::Result<u16> {
    if let Some(port) = given {
        return Ok(port);
    }
    let start = rand::random_range(SINGLE);
    let mut ports = (start..SINGLE.end).chain(SINGLE.start..start);
    ports
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .with_context(|| {
            format!(
                "no port from {} to {} is free",
                SINGLE.start,
                SINGLE.end - 1
            )
        })
}
