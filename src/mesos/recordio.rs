//! RecordIO: how Mesos puts messages on a stream that stays open.
//!
//! A record is its length in bytes as decimal digits, a line feed, and that many bytes. The
//! [`Decoder`] takes the stream in whatever pieces the network delivers and gives back whole
//! records; it reads nothing itself.
//!
//! Source: "RecordIO response format" on the Mesos page "Scheduler HTTP API".

use bytes::{Buf, Bytes, BytesMut};

/// The most digits that a length may have: those of the largest 64 bit number.
const MAX_LENGTH_DIGITS: usize = 20;

/// Why a stream is not RecordIO. The stream cannot be read on after this.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Something else than digits stood where a record's length belongs.
    #[error(
        "read the length of a RecordIO record: found {found:?}, which is not a decimal number \
         ended by a line feed; the peer does not speak the Mesos v1 API"
    )]
    Length {
        /// What stood there, escaped and cut to a few characters.
        found: String,
    },
    /// A record is longer than the reader is willing to hold in memory.
    #[error("read a RecordIO record of {length} bytes: more than the limit of {limit} bytes")]
    TooLong {
        /// The announced length in bytes.
        length: u64,
        /// The decoder's limit in bytes.
        limit: usize,
    },
    /// The stream ended in the middle of a record.
    #[error("the RecordIO stream ended within a record, {missing} bytes before its end")]
    Truncated {
        /// How many bytes of the record were still to come; 1 when even its length was cut off.
        missing: usize,
    },
}

/// Cuts a stream of bytes into records.
///
/// Call [`feed`](Self::feed) with every piece that arrives, then [`next`](Self::next) until it
/// gives `None`; at the end of the stream call [`finish`](Self::finish).
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// The length of the record being received, once it is known.
    length: Option<usize>,
    limit: usize,
}

impl Decoder {
    /// A decoder that refuses records longer than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            length: None,
            limit,
        }
    }

    /// Adds bytes received from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, or `None` when more bytes are needed for it.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] and [`Error::TooLong`]; the decoder gives the same error from then on.
    #[allow(
        clippy::should_implement_trait,
        reason = "None means not yet here, not the end"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let length = match self.length {
            Some(length) => length,
            None => match self.take_length()? {
                Some(length) => *self.length.insert(length),
                None => return Ok(None),
            },
        };
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Ok(None);
        }
        self.length = None;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Says whether the stream ended where a record ended.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] when a record is incomplete.
    pub fn finish(&self) -> Result<(), Error> {
        match self.length {
            Some(length) => Err(Error::Truncated {
                missing: length - self.buffer.len(),
            }),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(Error::Truncated { missing: 1 }),
        }
    }

    /// Takes `<digits>\n` off the buffer if it is complete.
    fn take_length(&mut self) -> Result<Option<usize>, Error> {
        let digits = self
            .buffer
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let end = self.buffer.get(digits).copied();
        if digits > MAX_LENGTH_DIGITS || (end.is_some() && (end != Some(b'\n') || digits == 0)) {
            return Err(self.bad_length());
        }
        if end.is_none() {
            return Ok(None);
        }
        let number = std::str::from_utf8(&self.buffer[..digits]).ok();
        let Some(length) = number.and_then(|digits| digits.parse::<u64>().ok()) else {
            return Err(self.bad_length());
        };
        let Some(size) = usize::try_from(length)
            .ok()
            .filter(|size| *size <= self.limit)
        else {
            return Err(Error::TooLong {
                length,
                limit: self.limit,
            });
        };
        self.buffer.advance(digits + 1);
        Ok(Some(size))
    }

    fn bad_length(&self) -> Error {
        let shown = &self.buffer[..self.buffer.len().min(32)];
        Error::Length {
            found: String::from_utf8_lossy(shown).into_owned(),
        }
    }
}

/// One record with its length before it.
#[must_use]
pub fn encode(record: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(record.len() + MAX_LENGTH_DIGITS + 1);
    framed.extend_from_slice(record.len().to_string().as_bytes());
    framed.extend_from_slice(b"\n");
    framed.extend_from_slice(record);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Bytes> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[test]
    fn a_record_comes_whole_however_it_is_cut() {
        let mut decoder = Decoder::new(64);
        decoder.feed(b"5\nhel");
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.finish(), Err(Error::Truncated { missing: 2 }));
        decoder.feed(b"lo0\n1");
        assert_eq!(all(&mut decoder), ["hello", ""]);
        assert_eq!(decoder.finish(), Err(Error::Truncated { missing: 1 }));
        decoder.feed(b"\nx");
        assert_eq!(all(&mut decoder), ["x"]);
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn what_is_not_recordio_is_refused() {
        for bad in [
            "{\"type\"",
            "\nabc",
            "12 \n",
            "-1\n",
            "99999999999999999999\n",
            "000000000000000000001",
        ] {
            let mut decoder = Decoder::new(64);
            decoder.feed(bad.as_bytes());
            assert!(
                matches!(decoder.next(), Err(Error::Length { .. })),
                "{bad:?}"
            );
            assert!(
                matches!(decoder.next(), Err(Error::Length { .. })),
                "{bad:?} again"
            );
        }
        let mut decoder = Decoder::new(64);
        decoder.feed(b"65\n");
        assert_eq!(
            decoder.next(),
            Err(Error::TooLong {
                length: 65,
                limit: 64
            })
        );
    }

    proptest! {
        #[test]
        fn any_records_survive_any_cutting(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(1_usize..17, 1..50),
        ) {
            let stream: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
            let mut decoder = Decoder::new(40);
            let mut found = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                decoder.feed(piece);
                found.extend(all(&mut decoder));
                rest = after;
            }
            prop_assert_eq!(found, records);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(16);
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
            let _ = decoder.finish();
        }
    }
}
