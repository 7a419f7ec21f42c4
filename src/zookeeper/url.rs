//! ZooKeeper URLs: `zk://[user:password@]host[:port][,host[:port]...][/path]`.
//!
//! This is the form that Mesos uses for its masters and that clients of a cluster are given. There
//! is no percent-encoding, as in Mesos; the user name ends at the first `:` and the credentials end
//! at the last `@`, so that a password may hold any character.

use std::fmt;
use std::str::FromStr;

use crate::secret::Secret;

/// The port of a server that is named without one.
pub const DEFAULT_PORT: u16 = 2181;

/// A digest identity: what ZooKeeper's `digest` scheme authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name; it holds no `:`.
    pub user: String,
    /// The user's password.
    pub password: Secret,
}

/// One server of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A host name or address; an IPv6 address without brackets.
    pub host: String,
    /// The port for clients.
    pub port: u16,
}

/// Where a ZooKeeper ensemble is, who we are there, and the path below which we work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZkUrl {
    credentials: Option<Credentials>,
    servers: Vec<Server>,
    /// Empty for the root, else beginning with a slash and not ending with one.
    path: String,
}

/// Why a text is no ZooKeeper URL. No variant repeats the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidZkUrl {
    /// Another scheme, or none.
    #[error("a ZooKeeper URL begins with zk://, as in zk://user:password@host:2181/path")]
    Scheme,
    /// The part before `@` is not `user:password`.
    #[error(
        "what stands before '@' in a ZooKeeper URL must be user:password, neither of them empty"
    )]
    Credentials,
    /// There is no server.
    #[error("the ZooKeeper URL names no server: write zk://host:port/path")]
    NoServer,
    /// A server is not `host` or `host:port`.
    #[error("{0:?} is no server of a ZooKeeper URL: write host:port with a port from 1 to 65535")]
    Server(String),
    /// ZooKeeper has no such path.
    #[error(
        "{0:?} is no ZooKeeper path: its parts must not be empty, '.' or '..', nor hold control characters"
    )]
    Path(String),
}

impl ZkUrl {
    /// Who we are, if the URL says so.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The servers, at least one.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The path: empty for the root, else beginning with a slash and not ending with one.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port,host:port`, as ZooKeeper clients take it.
    pub fn connect_string(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(Server::to_string).collect();
        servers.join(",")
    }

    /// The same ensemble with another identity, or with none.
    pub fn with_credentials(&self, credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            ..self.clone()
        }
    }

    /// A path below this URL's. `below` begins with a slash, as in `/discover/orders`.
    pub fn join(&self, below: &str) -> Result<Self, InvalidZkUrl> {
        let path = parse_path(&format!("{}{below}", self.path))?;
        Ok(Self {
            path,
            ..self.clone()
        })
    }

    /// The whole URL *with* the password: for an identity that is meant to be handed out.
    pub fn expose(&self) -> String {
        match &self.credentials {
            Some(Credentials { user, password }) => {
                format!(
                    "zk://{user}:{}@{}{}",
                    password.expose(),
                    self.connect_string(),
                    self.path
                )
            }
            None => self.to_string(),
        }
    }
}

/// The URL without user and password.
impl fmt::Display for ZkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zk://{}{}", self.connect_string(), self.path)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for ZkUrl {
    type Err = InvalidZkUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("zk://").ok_or(InvalidZkUrl::Scheme)?;
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((identity, rest)) => (Some(parse_credentials(identity)?), rest),
            None => (None, rest),
        };
        let (servers, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if servers.is_empty() {
            return Err(InvalidZkUrl::NoServer);
        }
        let servers = servers
            .split(',')
            .map(parse_server)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            credentials,
            servers,
            path: parse_path(path)?,
        })
    }
}

fn parse_credentials(text: &str) -> Result<Credentials, InvalidZkUrl> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(Credentials {
            user: user.to_owned(),
            password: Secret::new(password),
        }),
        _ => Err(InvalidZkUrl::Credentials),
    }
}

fn parse_server(text: &str) -> Result<Server, InvalidZkUrl> {
    let invalid = || InvalidZkUrl::Server(text.to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(invalid)?;
            match port {
                "" => (host, None),
                _ => (host, Some(port.strip_prefix(':').ok_or_else(invalid)?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(invalid)?,
        None => DEFAULT_PORT,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_address = text.starts_with('[') && host.parse::<std::net::Ipv6Addr>().is_ok();
    let is_name = !text.starts_with('[') && !host.is_empty() && host.chars().all(is_host);
    if !is_address && !is_name {
        return Err(invalid());
    }
    Ok(Server {
        host: host.to_owned(),
        port,
    })
}

/// A path without its trailing slash. The rules are those of ZooKeeper's `PathUtils`.
fn parse_path(text: &str) -> Result<String, InvalidZkUrl> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let part_is_good =
        |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    match path.strip_prefix('/') {
        None if path.is_empty() => Ok(String::new()),
        Some(parts) if parts.split('/').all(part_is_good) => Ok(path.to_owned()),
        _ => Err(InvalidZkUrl::Path(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn parse(text: &str) -> Result<ZkUrl, InvalidZkUrl> {
        text.parse()
    }

    #[test]
    fn the_whole_form() {
        let url = parse("zk://cotton:s:e/c@ret@zk1.example.com:2182,zk2,[::1]:2183/a/b/").unwrap();
        let credentials = url.credentials().unwrap();
        assert_eq!(credentials.user, "cotton");
        assert_eq!(credentials.password.expose(), "s:e/c@ret");
        assert_eq!(
            url.connect_string(),
            "zk1.example.com:2182,zk2:2181,[::1]:2183"
        );
        assert_eq!(url.path(), "/a/b");
    }

    #[test]
    fn the_root_is_an_empty_path() {
        for text in ["zk://a", "zk://a/", "zk://a:2181/"] {
            let url = parse(text).unwrap();
            assert_eq!(url.path(), "", "{text}");
            assert_eq!(url.to_string(), "zk://a:2181");
        }
    }

    #[test]
    fn the_password_is_shown_only_on_demand() {
        let url = parse("zk://cotton:hunter2@a/x").unwrap();
        assert_eq!(url.to_string(), "zk://a:2181/x");
        assert!(!format!("{url:?}").contains("hunter2"));
        assert_eq!(url.expose(), "zk://cotton:hunter2@a:2181/x");
        assert_eq!(url.with_credentials(None).expose(), "zk://a:2181/x");
    }

    #[test]
    fn paths_are_joined_below() {
        let url = parse("zk://a/x").unwrap().join("/discover/orders").unwrap();
        assert_eq!(url.to_string(), "zk://a:2181/x/discover/orders");
        assert!(url.join("/..").is_err());
    }

    #[test]
    fn wrong_texts_get_their_sentence_and_never_show_a_password() {
        use InvalidZkUrl as E;
        let server = |text: &str| E::Server(text.to_owned());
        let path = |text: &str| E::Path(text.to_owned());
        let table = [
            ("", E::Scheme),
            ("http://a:2181", E::Scheme),
            ("a:2181/x", E::Scheme),
            ("zk://", E::NoServer),
            ("zk:///x", E::NoServer),
            ("zk://hunter2@a", E::Credentials),
            ("zk://:hunter2@a", E::Credentials),
            ("zk://cotton:@a", E::Credentials),
            ("zk://u:hunter2@", E::NoServer),
            ("zk://a,,b", server("")),
            ("zk://a:0", server("a:0")),
            ("zk://a:65536", server("a:65536")),
            ("zk://a:x", server("a:x")),
            ("zk://a b", server("a b")),
            ("zk://[::1", server("[::1")),
            ("zk://[a]:1", server("[a]:1")),
            ("zk://::1", server("::1")),
            ("zk://a//b", path("//b")),
            ("zk://a/b/../c", path("/b/../c")),
            ("zk://a/b\n", path("/b\n")),
        ];
        for (text, expected) in table {
            let error = parse(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
