//! Reads single values. An error is a sentence that goes on after `--flag: `.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::spec::ReplaceAfter,
    secret::Secret,
    zookeeper::url::{Credentials, ZkUrl},
};

/// A variable of the executors' environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where the scheduler keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateStorage {
    /// In ZooKeeper.
    ZooKeeper,
    /// In files below the work directory.
    Local,
}

/// Whether members of a cluster may share an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// They do when there is no other agent for a while.
    Prefer,
    /// They never do.
    Require,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Tasks must outlive a restart of the scheduler's machine at least.
const FAILOVER_TIMEOUT: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3650 * DAY)];

/// Reports take a second to come; an operator is awake after an hour.
const ELECTION_TIMEOUT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];

/// A check takes a millisecond; one in a minute is hardly one.
const CHECK_INTERVAL: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

/// A healthy server under load may not answer for some tenths of a second.
const HANG_TIMEOUT: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(600)];

/// A disk may be busy for a second; a transaction of many gigabytes is written for minutes.
const COMMIT_TIMEOUT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];

/// The client library needs 2/5 of a session timeout, 2.4 s, to see that a connection is gone.
const MASTER_LEASE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(600)];

/// A server that starts again, or a host that reboots, is back within the least of it or a little more.
const VOTER_PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(7 * DAY)];

/// Executors tell of a lag from 5 s to a day, and a voter is well again at a quarter of the bound.
const VOTER_LAG: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(DAY)];

/// Failovers that are minutes apart have something to do with each other; those of different days do not.
const FAILOVER_WINDOW: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(DAY)];

/// From at once to ten years.
const KEEP_DELETED: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3650 * DAY)];

/// Nobody throws away within hours what is left of a cluster.
const BACKUP_KEEP_DELETED: [Duration; 2] =
    [Duration::from_secs(DAY), Duration::from_secs(3650 * DAY)];

const DAY: u64 = 24 * 60 * 60;

pub(super) fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{text:?} is not a port number from 1 to 65535"))
}

pub(super) fn host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not HOST:PORT, as in cotton.example.com:8080");
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    let is_plain = !authority.host().is_empty() && !text.contains('@');
    let has_port = authority.port_u16().is_some_and(|port| port != 0);
    if is_plain && has_port {
        Ok(text.to_owned())
    } else {
        Err(wrong())
    }
}

/// What the machine calls itself; agents must be able to look it up.
pub(super) fn own_host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

pub(super) fn user(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-$".contains(c);
    if text.len() <= 32 && text.chars().all(allowed) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not the name of a user: up to 32 letters, digits, '.', '_', '-'"
        ))
    }
}

/// The rules are those of the Mesos page "Roles".
pub(super) fn role(text: &str) -> Result<String, String> {
    let part_is_good = |part: &str| !matches!(part, "" | "." | "..") && !part.starts_with('-');
    let has_bad_character = |c: char| c.is_whitespace() || c.is_control();
    let is_hierarchical_star = text != "*" && text.split('/').any(|part| part == "*");
    if text.split('/').all(part_is_good)
        && !text.contains(has_bad_character)
        && !is_hierarchical_star
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is not a Mesos role: no spaces, no part that is empty, '.', '..' or begins with '-'"
        ))
    }
}

pub(super) fn failover_timeout(text: &str) -> Result<Duration, String> {
    duration(text, FAILOVER_TIMEOUT)
}

pub(super) fn election_timeout(text: &str) -> Result<Duration, String> {
    duration(text, ELECTION_TIMEOUT)
}

pub(super) fn check_interval(text: &str) -> Result<Duration, String> {
    duration(text, CHECK_INTERVAL)
}

pub(super) fn hang_timeout(text: &str) -> Result<Duration, String> {
    duration(text, HANG_TIMEOUT)
}

pub(super) fn commit_timeout(text: &str) -> Result<Duration, String> {
    duration(text, COMMIT_TIMEOUT)
}

pub(super) fn master_lease(text: &str) -> Result<Duration, String> {
    duration(text, MASTER_LEASE)
}

pub(super) fn voter_patience(text: &str) -> Result<Duration, String> {
    duration(text, VOTER_PATIENCE)
}

pub(super) fn replace_after(text: &str) -> Result<Duration, String> {
    duration(text, ReplaceAfter::RANGE)
}

pub(super) fn voter_lag(text: &str) -> Result<Duration, String> {
    duration(text, VOTER_LAG)
}

pub(super) fn failover_window(text: &str) -> Result<Duration, String> {
    duration(text, FAILOVER_WINDOW)
}

pub(super) fn keep_deleted(text: &str) -> Result<Duration, String> {
    duration(text, KEEP_DELETED)
}

pub(super) fn backup_keep_deleted(text: &str) -> Result<Duration, String> {
    duration(text, BACKUP_KEEP_DELETED)
}

pub(super) fn backups_at_once(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=1000).contains(n));
    number.ok_or_else(|| format!("{text:?} is not a whole number from 1 to 1000"))
}

pub(super) fn copy_rate(text: &str) -> Result<u32, String> {
    // The most that MySQL's clone_max_network_bandwidth takes is a TiB.
    let number = text.parse().ok().filter(|n| *n <= 1 << 20);
    number.ok_or_else(|| {
        format!("{text:?} is not a whole number of MiB per second, or 0 for no limit")
    })
}

pub(super) fn copy_cost(text: &str) -> Result<u8, String> {
    let number = text.parse().ok().filter(|n| (1..=100).contains(n));
    number.ok_or_else(|| format!("{text:?} is not a whole number of percent, from 1 to 100"))
}

pub(super) fn failover_limit(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| (1..=100).contains(n));
    number.ok_or_else(|| format!("{text:?} is not a whole number from 1 to 100"))
}

fn duration(text: &str, [min, max]: [Duration; 2]) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a time such as 30s, 5m, 12h or 14d"))?;
    if (min..=max).contains(&time) {
        return Ok(time);
    }
    let (min, max) = (in_days_or_seconds(min), in_days_or_seconds(max));
    Err(format!(
        "{text} is out of range: give a time from {min} to {max}"
    ))
}

fn in_days_or_seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        seconds if seconds % DAY == 0 => format!("{}d", seconds / DAY),
        seconds => format!("{seconds}s"),
    }
}

pub(super) fn uri(text: &str) -> Result<String, String> {
    let schemes = [
        "http://", "https://", "ftp://", "ftps://", "hdfs://", "s3://", "s3a://", "s3n://",
        "file:///",
    ];
    let known = text.starts_with('/')
        || schemes.iter().any(|scheme| {
            text.strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        });
    if known && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} is nothing that Mesos agents can fetch: give an absolute path or a URI with http://, https://, ftp://, hdfs://, s3:// or file:///"
        ))
    }
}

pub(super) fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains('\0') {
        Err("it is empty or holds a NUL character; give a command for the shell".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn environment(text: &str) -> Result<Vec<EnvironmentVariable>, String> {
    // The values may be secret, so that sentences say what is wrong and never with which value.
    let variables: Vec<EnvironmentVariable> = serde_json::from_str(text).map_err(|_| {
        "it is not a JSON list of objects with name and value, as in [{\"name\": \"TZ\", \"value\": \"UTC\"}]".to_owned()
    })?;
    let mut seen = BTreeSet::new();
    for EnvironmentVariable { name, value } in &variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!(
                "the variable {name:?} cannot be: a name is not empty and has no '=', and neither name nor value holds NUL"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("the variable {name} is given twice"));
        }
    }
    Ok(variables)
}

pub(super) fn source_prefix(text: &str) -> Result<String, String> {
    if text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{text:?} has spaces, control characters or letters beyond ASCII"
        ))
    }
}

pub(super) fn zk_url(text: &str) -> Result<ZkUrl, String> {
    let url: ZkUrl = text
        .parse()
        .map_err(|error: crate::zookeeper::url::InvalidZkUrl| error.to_string())?;
    if url.path().is_empty() {
        return Err("the URL has no path: name the node below which Cotton keeps everything, as in zk://zk1:2181/cotton".to_owned());
    }
    Ok(url)
}

pub(super) fn identity(text: &str) -> Result<Credentials, String> {
    match text.split_once(':') {
        // It stands in URLs, where these would end it.
        Some((user, password))
            if !user.is_empty()
                && !password.is_empty()
                && !text.contains(['@', '/', ','])
                && !text.contains(char::is_whitespace) =>
        {
            Ok(Credentials {
                user: user.to_owned(),
                password: Secret::new(password),
            })
        }
        _ => Err(
            "it is not USER:PASSWORD, both not empty and without '@', '/', ',' and spaces"
                .to_owned(),
        ),
    }
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!(
            "{text:?} must be an absolute path: agents look for the same one"
        ))
    }
}

pub(super) fn work_dir(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_dir() => Err(format!("{text} is not a directory")),
        // What does not exist is made when it is needed.
        _ => Ok(path),
    }
}

pub(super) fn state_storage(text: &str) -> Result<StateStorage, String> {
    match text {
        "zk" => Ok(StateStorage::ZooKeeper),
        "local" => Ok(StateStorage::Local),
        _ => Err(format!("{text:?} is neither zk nor local")),
    }
}

pub(super) fn spread(text: &str) -> Result<Spread, String> {
    match text {
        "prefer" => Ok(Spread::Prefer),
        "require" => Ok(Spread::Require),
        _ => Err(format!("{text:?} is neither prefer nor require")),
    }
}

/// Names with commas between them; none at all is an empty text.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(|it| it.trim().to_owned()).collect();
    match names.iter().find(|name| name.is_empty()) {
        Some(_) => Err(format!(
            "there is a name missing in {text:?}; write names with commas between them, such as zone,rack"
        )),
        None => Ok(names),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}
