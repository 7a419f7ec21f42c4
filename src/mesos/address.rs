//! Where Mesos masters are, as an operator or a master says it: pure parsing.
//!
//! `--mesos-master` takes one address, several separated by commas, or the `zk://` URL of the group
//! that the masters elect their leader in. A master that does not lead answers 307 with a
//! `Location` that names the leader without a scheme: `//host:port/master/api/v1/scheduler`.

use std::fmt;

use http::uri::PathAndQuery;

use crate::zookeeper::url::{InvalidZkUrl, ZkUrl};

/// The path of the scheduler API on a master.
pub(super) const SCHEDULER_PATH: &str = "/api/v1/scheduler";

/// What `--mesos-master` says. Parsed from its text with [`MasterAddresses::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterAddresses {
    /// One or more masters, to be tried in turn.
    List(Vec<MasterAddress>),
    /// The leader is looked up, and followed, in ZooKeeper.
    ZooKeeper(ZkUrl),
}

/// `host:port` of one master; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MasterAddress(String);

/// Why a text names no Mesos masters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing, or nothing between two commas.
    #[error(
        "no Mesos master is named: host:port, a list of them, or zk://servers/path is expected"
    )]
    Empty,
    /// Not `host:port`.
    #[error(
        "{text:?} is not the address of a server: host:port is expected, as in master1.example.com:5050"
    )]
    Address {
        /// What was read.
        text: String,
    },
    /// Another scheme than `zk`.
    #[error(
        "Mesos masters cannot be found through {scheme}://: host:port, a list of them, or zk://servers/path is expected"
    )]
    Scheme {
        /// The scheme that was read.
        scheme: String,
    },
    /// The URL of the group is none.
    #[error("find the group of the Mesos masters: {0}")]
    ZooKeeper(InvalidZkUrl),
    /// The URL of the group names no node below the root.
    #[error(
        "the ZooKeeper URL of the Mesos masters names no group: a path is expected after the servers, as in zk://zk1:2181/mesos"
    )]
    Path,
}

impl MasterAddresses {
    /// Reads the value of `--mesos-master`.
    ///
    /// # Errors
    ///
    /// [`AddressError`]; no text of an error holds a password.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        match text.split_once("://") {
            Some(("zk", _)) => {
                let url: ZkUrl = text.parse().map_err(AddressError::ZooKeeper)?;
                if url.path().is_empty() {
                    return Err(AddressError::Path);
                }
                Ok(Self::ZooKeeper(url))
            }
            Some((scheme, _)) => Err(AddressError::Scheme {
                scheme: scheme.to_owned(),
            }),
            None if text.is_empty() => Err(AddressError::Empty),
            None => text
                .split(',')
                .map(|part| MasterAddress::parse(part.trim()))
                .collect::<Result<_, _>>()
                .map(Self::List),
        }
    }
}

impl fmt::Display for MasterAddresses {
    /// As it was given, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(addresses) => {
                let texts: Vec<_> = addresses.iter().map(MasterAddress::as_str).collect();
                f.write_str(&texts.join(","))
            }
            Self::ZooKeeper(url) => url.fmt(f),
        }
    }
}

impl MasterAddress {
    /// Reads `host:port`.
    ///
    /// # Errors
    ///
    /// [`AddressError::Empty`] and [`AddressError::Address`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let error = || AddressError::Address {
            text: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port: u16 = port
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| port.parse().ok())
            .flatten()
            .ok_or_else(error)?;
        if port == 0 || !is_host(host) {
            return Err(error());
        }
        Ok(Self(text.to_owned()))
    }

    /// `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// Where the scheduler API of a master is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub address: MasterAddress,
    pub path: PathAndQuery,
}

impl Target {
    /// The API of the master at an address that was given.
    pub fn of(address: MasterAddress) -> Self {
        Self {
            address,
            path: PathAndQuery::from_static(SCHEDULER_PATH),
        }
    }

    /// Where a `Location` points that this target answered with; `None` if nothing can be made of it.
    pub fn redirected(&self, location: &str) -> Option<Self> {
        let rest = location.strip_prefix("http:").unwrap_or(location);
        let (address, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (address, path) = rest.split_at(end);
                (MasterAddress::parse(address).ok()?, path)
            }
            None if rest.starts_with('/') => (self.address.clone(), rest),
            None => return None,
        };
        let path = match path {
            "" => PathAndQuery::from_static(SCHEDULER_PATH),
            path => path.parse().ok()?,
        };
        Some(Self { address, path })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn addresses_lists_and_groups_are_read() {
        for text in [
            "a:5050",
            "10.0.0.1:5050,b.example.com:5051",
            "[::1]:5050",
            "zk://a:2181,b:2181/mesos/x",
        ] {
            assert_eq!(MasterAddresses::parse(text).unwrap().to_string(), text);
        }
        let group = MasterAddresses::parse(" zk://me:p@:ss@a:2181/mesos/ ").unwrap();
        assert_eq!(group.to_string(), "zk://a:2181/mesos");
        assert!(matches!(group, MasterAddresses::ZooKeeper(url) if url.credentials().is_some()));
    }

    #[test]
    fn everything_else_is_refused_with_a_sentence() {
        for (text, sentence) in [
            ("", "no Mesos master is named"),
            ("a:1,", "no Mesos master is named"),
            ("a", "\"a\" is not the address of a server"),
            ("a:", "is not the address"),
            ("a:0", "is not the address"),
            ("a:+1", "is not the address"),
            ("a:65536", "is not the address"),
            ("a b:1", "is not the address"),
            ("::1:5050", "is not the address"),
            ("[x]:5050", "is not the address"),
            ("http://a:1", "cannot be found through http://"),
            ("zk://a:1", "names no group"),
            ("zk://a:1/", "names no group"),
            (
                "zk://hunter2@a:1/b",
                "find the group of the Mesos masters: what stands before '@'",
            ),
        ] {
            let error = MasterAddresses::parse(text).unwrap_err().to_string();
            assert!(error.contains(sentence), "{text:?}: {error}");
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn the_recorded_location_and_its_relatives_are_followed() {
        let from = Target::of(MasterAddress::parse("localhost:5060").unwrap());
        let to = |location: &str| {
            from.redirected(location)
                .map(|target| format!("{}{}", target.address, target.path))
        };
        let found = Some("localhost:5061/master/api/v1/scheduler".to_owned());
        assert_eq!(to("//localhost:5061/master/api/v1/scheduler"), found);
        assert_eq!(to("http://localhost:5061/master/api/v1/scheduler"), found);
        assert_eq!(to("//b:1").unwrap(), "b:1/api/v1/scheduler");
        assert_eq!(to("/x").unwrap(), "localhost:5060/x");
        for bad in ["", "x", "https://a:1/x", "//a/x", "//a:1/ x"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }
}
