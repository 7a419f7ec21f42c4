//! Hosts of their own on this one machine: network namespaces, joined by a bridge, that can be cut off from
//! each other, in one direction or both.
//!
//! A cut is made in the sender's neighbour table: what it sends to the other host goes to a hardware address
//! that nobody has. So packets vanish without a word, as they do in a network that is broken, established
//! connections stay open, and the other direction works on. It needs root, and nothing of the kernel but
//! bridges and virtual Ethernet pairs (ip-neighbour(8), veth(4)).

use std::fmt::Display;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A hardware address that nobody has.
const NOWHERE: &str = "02:00:00:00:00:01";

/// The interface of a host.
const INTERFACE: &str = "eth0";

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// How the namespaces of these tests are called: this, the pid, the network's number, the host's number.
const PREFIX: &str = "cotton-";

/// One end of a connection between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The host with everything that is there once: ZooKeeper, the Mesos master, the scheduler, the clients. It
    /// is the namespace of the test itself.
    Hub,
    /// The host with this number, counted from 1.
    Host(u8),
}

/// Some hosts and a hub. They are removed when it is dropped.
#[derive(Debug)]
pub struct Network {
    number: u8,
    hosts: u8,
}

impl Network {
    /// Makes a network; panics without root's rights.
    pub fn new(hosts: u8) -> Self {
        sweep();
        // The name of the bridge is taken by one network at a time, and with it the addresses.
        let number = (1..=250)
            .find(|number| ip(&["link", "add", &bridge(*number), "type", "bridge"]).is_ok());
        let number =
            number.expect("a bridge can be made: is this root, and are there less than 250?");
        let network = Self { number, hosts };
        let hub = format!("{}/24", network.address(End::Hub));
        must(&["addr", "add", &hub, "dev", &bridge(number)]);
        must(&["link", "set", &bridge(number), "up"]);
        for host in 1..=hosts {
            network.add_host(host);
        }
        network
    }

    fn add_host(&self, host: u8) {
        let (namespace, outside) = (self.namespace(host), outside(self.number, host));
        must(&["netns", "add", &namespace]);
        must(&[
            "link", "add", &outside, "type", "veth", "peer", "name", INTERFACE, "netns", &namespace,
        ]);
        must(&[
            "link",
            "set",
            &outside,
            "master",
            &bridge(self.number),
            "up",
        ]);
        let address = format!("{}/24", self.address(End::Host(host)));
        must(&["-n", &namespace, "addr", "add", &address, "dev", INTERFACE]);
        must(&["-n", &namespace, "link", "set", INTERFACE, "up"]);
        must(&["-n", &namespace, "link", "set", "lo", "up"]);
    }

    /// The address of an end.
    pub fn address(&self, end: End) -> Ipv4Addr {
        let last = match end {
            End::Hub => 254,
            End::Host(number) => number,
        };
        Ipv4Addr::new(10, 211, self.number, last)
    }

    /// The namespace of a host, for `nsenter --net=...`.
    pub fn namespace_path(&self, host: u8) -> PathBuf {
        Path::new(NAMESPACES).join(self.namespace(host))
    }

    fn namespace(&self, host: u8) -> String {
        format!("{PREFIX}{}-{}-{host}", std::process::id(), self.number)
    }

    /// What `from` sends does not arrive at `to` any more.
    pub fn cut(&self, from: End, to: End) {
        let address = self.address(to).to_string();
        self.neighbour(
            from,
            &["replace", &address, "lladdr", NOWHERE, "nud", "permanent"],
        )
        .unwrap();
    }

    /// Cuts a host off: nothing that it sends arrives.
    pub fn mute(&self, host: u8) {
        for other in self.others(host) {
            self.cut(End::Host(host), other);
        }
    }

    /// Cuts a host off: nothing arrives there.
    pub fn deafen(&self, host: u8) {
        for other in self.others(host) {
            self.cut(other, End::Host(host));
        }
    }

    /// Cuts a host off from all others, the hub among them.
    pub fn isolate(&self, host: u8) {
        self.mute(host);
        self.deafen(host);
    }

    /// Mends all that is cut.
    pub fn heal(&self) {
        let ends: Vec<End> = self.ends().collect();
        for from in &ends {
            for to in ends.iter().filter(|to| *to != from) {
                // Most of them were never cut.
                let _ = self.neighbour(*from, &["del", &self.address(*to).to_string()]);
            }
        }
    }

    fn ends(&self) -> impl Iterator<Item = End> {
        std::iter::once(End::Hub).chain((1..=self.hosts).map(End::Host))
    }

    fn others(&self, host: u8) -> impl Iterator<Item = End> {
        self.ends().filter(move |end| *end != End::Host(host))
    }

    /// Changes the neighbour table of an end: `ip neigh VERB ADDRESS ... dev INTERFACE`.
    fn neighbour(&self, end: End, change: &[&str]) -> Result<(), String> {
        let (namespace, interface) = match end {
            End::Hub => (None, bridge(self.number)),
            End::Host(host) => (Some(self.namespace(host)), INTERFACE.to_owned()),
        };
        let mut arguments = Vec::new();
        if let Some(namespace) = &namespace {
            arguments.extend(["-n", namespace]);
        }
        arguments.push("neigh");
        arguments.extend(change);
        arguments.extend(["dev", &interface]);
        ip(&arguments)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            // With its namespace it would go a while later, and the next network could have this one's number by then.
            let _ = ip(&["link", "del", &outside(self.number, host)]);
            let _ = ip(&["netns", "del", &self.namespace(host)]);
        }
        let _ = ip(&["link", "del", &bridge(self.number)]);
    }
}

fn bridge(number: impl Display) -> String {
    format!("cottonbr{number}")
}

/// The hub's end of the pair that joins a host with the bridge.
fn outside(network: impl Display, host: impl Display) -> String {
    format!("cv{network}-{host}")
}

/// Removes what a killed test binary has left.
fn sweep() {
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut words = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
        let (Some(pid), Some(number), Some(host)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if !pid.is_empty() && !Path::new("/proc").join(pid).exists() {
            let _ = ip(&["link", "del", &outside(number, host)]);
            let _ = ip(&["netns", "del", &name]);
            let _ = ip(&["link", "del", &bridge(number)]);
        }
    }
}

fn must(arguments: &[&str]) {
    ip(arguments).unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")));
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
