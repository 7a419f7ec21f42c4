//! Free ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context as _;

/// Blocks lie below the ports that the kernel gives to outgoing connections (32768 and up), one of which could have a
/// port by the time that it is wanted.
const FIRST_BLOCK: u16 = 20_000;
const BLOCKS: u16 = 100;

/// How many ports a block has.
const BLOCK_LENGTH: u16 = 120;

/// How many of them are for what is there once: ZooKeeper, the Mesos master and the schedulers. The first one of all is
/// held as the lock of the block.
const SINGLE: u16 = 20;

/// A block of ports, which no other `cotton local` uses while this one lives.
#[derive(Debug)]
pub struct Block {
    _lock: TcpListener,
    first: u16,
    /// How many of the single ports were looked at.
    taken: u16,
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
                return Ok(Self {
                    _lock: lock,
                    first,
                    taken: 1,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "all blocks of ports are in use",
        ))
    }

    /// The ports for agents. Agents have different addresses and share them.
    pub fn for_agents(&self) -> String {
        format!("{}-{}", self.first + SINGLE, self.first + BLOCK_LENGTH - 1)
    }

    /// The given port, or one of this block on which nobody listens at this address and which it has not given out
    /// before.
    ///
    /// # Errors
    ///
    /// No port is free.
    pub fn given_or_free(&mut self, given: Option<u16>, ip: Ipv4Addr) -> anyhow::Result<u16> {
        if let Some(port) = given {
            return Ok(port);
        }
        let (first, end) = (self.first + self.taken, self.first + SINGLE);
        let port = (first..end)
            .find(|port| TcpListener::bind((ip, *port)).is_ok())
            .with_context(|| {
                format!(
                    "no port of {ip} from {} to {} is free",
                    self.first + 1,
                    end - 1
                )
            })?;
        self.taken = port - self.first + 1;
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[test]
    fn no_two_blocks_and_no_two_ports_of_one_are_the_same() {
        let mut one = Block::take().unwrap();
        let other = Block::take().unwrap();
        assert!(one.first.abs_diff(other.first) >= BLOCK_LENGTH);
        let ports = [(); 3].map(|()| one.given_or_free(None, LOCALHOST).unwrap());
        assert!(ports[0] > one.first && ports[0] < ports[1] && ports[1] < ports[2]);
        assert!(ports[2] < one.first + SINGLE);
        assert!(
            one.for_agents()
                .starts_with(&(one.first + SINGLE).to_string())
        );
    }

    #[test]
    fn a_port_at_which_somebody_listens_is_passed_over() {
        let mut block = Block::take().unwrap();
        // Only at the address that is asked about.
        let address = Ipv4Addr::new(127, 0, 0, 9);
        let foreign = TcpListener::bind((address, block.first + 1)).unwrap();
        let port = block.given_or_free(None, address).unwrap();
        assert!(port > foreign.local_addr().unwrap().port());
    }

    #[test]
    fn a_given_port_is_taken_as_it_is() {
        let mut block = Block::take().unwrap();
        assert_eq!(block.given_or_free(Some(7), LOCALHOST).unwrap(), 7);
    }
}
