//! Where a member's task goes.
//!
//! Clusters are served first come, first served, and members of one cluster belong on different
//! agents: what takes one agent must take one member. Only when no other agent has shown up for a
//! while does a member share one, which is better than not running at all and is said in the
//! cluster's reason.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    cluster::{
        id::TaskId,
        record::TaskRecord,
        size::Size,
        slot::{self, Slot, SlotId, SlotOwner},
    },
    mesos::v1,
    time::Timestamp,
};

/// How long a member waits for an agent of its own before it shares one, unless it must not share.
/// Offers come every second or so on a Mesos with default settings; 30 s see every agent that has
/// room several times.
pub const SPREAD_PATIENCE: Duration = Duration::from_secs(30);

/// Mesos computes with three decimals; a hair less than asked for is not less.
const ROUNDING: f64 = 0.0005;

/// Resources of one agent that are offered to the framework. Only unreserved resources that are
/// allocated to the framework's role are counted in its amounts.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Mesos' id of the offer.
    pub id: String,
    /// Mesos' id of the agent.
    pub agent_id: String,
    /// The agent's host name.
    pub host: String,
    /// The role that the resources are allocated to.
    pub role: String,
    /// Cpus.
    pub cpus: f64,
    /// Memory, in MiB.
    pub mem_mib: f64,
    /// Disk, in MiB.
    pub disk_mib: f64,
    /// Ranges of TCP ports, both ends included.
    pub ports: Vec<(u16, u16)>,
    /// What is reserved for members of clusters, by the labels of the reservations.
    pub slots: Vec<OfferedSlot>,
}

/// What an offer holds of a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedSlot {
    /// The slot.
    pub id: SlotId,
    /// Whose it is.
    pub owner: SlotOwner,
    /// Cpus.
    pub cpus: f64,
    /// Memory, in MiB.
    pub mem_mib: f64,
    /// Disk, in MiB, without the volume.
    pub disk_mib: f64,
    /// The volume's size in MiB, if it is there.
    pub volume_mib: Option<f64>,
    /// Ranges of TCP ports, both ends included.
    pub ports: Vec<(u16, u16)>,
    /// All of it in Mesos' words, which operations on it have to repeat.
    pub resources: Vec<v1::Resource>,
}

/// How much of a slot an offer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Too little to launch anything on it.
    Part,
    /// All that is reserved; the volume was never made.
    Reservation,
    /// All of it.
    Volume,
}

impl OfferedSlot {
    /// How much of `slot` this is.
    pub fn holds(&self, slot: &Slot) -> Holds {
        let volume = slot::volume_mib(&slot.size);
        let whole = self.cpus + ROUNDING >= slot.size.cpus()
            && self.mem_mib + ROUNDING >= slot.size.mem_mib() as f64
            && (self.ports.iter()).any(|(begin, end)| (*begin..=*end).contains(&slot.port));
        let disk = slot.size.disk_mib() as f64;
        match self.volume_mib {
            _ if !whole => Holds::Part,
            Some(_) if self.disk_mib + ROUNDING >= disk - volume as f64 => Holds::Volume,
            None if self.disk_mib + ROUNDING >= disk => Holds::Reservation,
            Some(_) | None => Holds::Part,
        }
    }
}

impl Offer {
    /// What it holds of a slot.
    pub fn slot(&self, id: &SlotId) -> Option<&OfferedSlot> {
        self.slots.iter().find(|slot| slot.id == *id)
    }

    /// Whether a member of `size` fits in.
    fn has_room_for(&self, size: &Size) -> bool {
        self.cpus + ROUNDING >= size.cpus()
            && self.mem_mib + ROUNDING >= size.mem_mib() as f64
            && self.disk_mib + ROUNDING >= size.disk_mib() as f64
            && !self.ports.is_empty()
    }

    /// A port of the offer. Which one is spread by `hint`, so that a port that was just freed, and
    /// which clients of another cluster may still try, is not taken at once.
    fn port(&self, hint: u32) -> Option<u16> {
        let total: u32 = self
            .ports
            .iter()
            .map(|(b, e)| u32::from(*e) - u32::from(*b) + 1)
            .sum();
        let mut index = hint.checked_rem(total)?;
        for (begin, end) in &self.ports {
            let length = u32::from(*end) - u32::from(*begin) + 1;
            if index < length {
                return Some(begin + index as u16);
            }
            index -= length;
        }
        None
    }
}

/// A task to launch with an offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The offer that pays for it. It is used up.
    pub offer: Offer,
    /// What is launched.
    pub task: TaskRecord,
    /// The resources.
    pub size: Size,
    /// Where its data lies.
    pub ground: Ground,
}

/// Where a task's data lies, and what has to be made for that in the same message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// In the sandbox, with which it goes. Nothing is reserved.
    Sandbox,
    /// In a slot that is reserved, and whose volume is made, with the launch.
    New(SlotId),
    /// In a slot that the offer holds without its volume, which is made with the launch.
    Reserved(SlotId),
    /// In a slot that the offer holds with its volume.
    Volume(SlotId),
}

impl Ground {
    /// The slot, if there is one.
    pub fn slot(&self) -> Option<&SlotId> {
        match self {
            Self::Sandbox => None,
            Self::New(id) | Self::Reserved(id) | Self::Volume(id) => Some(id),
        }
    }
}

/// How good an offer is for a member; the smallest is the best. The order of the fields is the
/// policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    /// An agent with no other member of the cluster.
    shares_agent: bool,
    /// The least memory left over, in MiB: best fit keeps room for larger members elsewhere.
    memory_left_mib: u64,
    /// Only so that ties are decided the same way every time.
    offer_id: String,
}

/// What a member's placement came to.
#[derive(Debug, PartialEq)]
pub enum Placement<'a> {
    /// This offer and port.
    Use {
        /// The offer.
        offer: &'a Offer,
        /// The port.
        port: u16,
    },
    /// Only agents that run another member of the cluster have room; wait for others until then.
    WaitForSpread {
        /// When the member shares an agent, if ever.
        until: Option<Timestamp>,
    },
    /// No offer has room.
    NoRoom,
}

/// Chooses among `offers` for a member, while the cluster's other members are on `occupied` agents,
/// of which it may share one from `shares_at` on.
pub fn place<'a>(
    offers: impl Iterator<Item = &'a Offer>,
    size: &Size,
    occupied: &BTreeSet<&str>,
    task_hint: &TaskId,
    shares_at: Option<Timestamp>,
    now: Timestamp,
) -> Placement<'a> {
    let preference = |offer: &Offer| Preference {
        shares_agent: occupied.contains(offer.agent_id.as_str()),
        memory_left_mib: (offer.mem_mib - size.mem_mib() as f64).max(0.0) as u64,
        offer_id: offer.id.clone(),
    };
    let best = offers
        .filter(|o| o.has_room_for(size))
        .min_by_key(|o| preference(o));
    let Some(offer) = best else {
        return Placement::NoRoom;
    };
    let must_wait = shares_at.is_none_or(|at| now < at);
    if occupied.contains(offer.agent_id.as_str()) && must_wait {
        return Placement::WaitForSpread { until: shares_at };
    }
    match offer.port(port_hint(task_hint)) {
        Some(port) => Placement::Use { offer, port },
        None => Placement::NoRoom,
    }
}

/// A number that differs between tasks and is the same for one (FNV-1a).
fn port_hint(task: &TaskId) -> u32 {
    task.as_str().bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(id: &str, agent: &str, mem: f64) -> Offer {
        Offer {
            id: id.into(),
            agent_id: agent.into(),
            host: "h".into(),
            role: "cotton".into(),
            cpus: 4.0,
            mem_mib: mem,
            disk_mib: 10_000.0,
            ports: vec![(31000, 31009), (32000, 32000)],
            slots: Vec::new(),
        }
    }

    fn size() -> Size {
        Size::DEFAULT
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn chosen(offers: &[Offer], occupied: &[&str], now: Timestamp) -> Option<String> {
        let occupied = occupied.iter().copied().collect();
        match place(
            offers.iter(),
            &size(),
            &occupied,
            &TaskId::from_wire("t"),
            Some(at(30)),
            now,
        ) {
            Placement::Use { offer, .. } => Some(offer.id.clone()),
            Placement::WaitForSpread { .. } | Placement::NoRoom => None,
        }
    }

    #[test]
    fn the_tightest_fit_wins() {
        let offers = [
            offer("o1", "a1", 4096.0),
            offer("o2", "a2", 600.0),
            offer("o3", "a3", 100.0),
        ];
        assert_eq!(chosen(&offers, &[], at(0)).as_deref(), Some("o2"));
    }

    #[test]
    fn another_agent_wins_over_a_tighter_fit() {
        let offers = [offer("o1", "a1", 4096.0), offer("o2", "a2", 600.0)];
        assert_eq!(chosen(&offers, &["a2"], at(0)).as_deref(), Some("o1"));
    }

    #[test]
    fn an_agent_is_shared_after_a_while() {
        let offers = [offer("o1", "a1", 4096.0)];
        assert_eq!(chosen(&offers, &["a1"], at(29)), None);
        assert_eq!(chosen(&offers, &["a1"], at(30)).as_deref(), Some("o1"));
    }

    #[test]
    fn too_small_is_no_room() {
        for lacking in [
            Offer {
                cpus: 0.5,
                ..offer("o", "a", 4096.0)
            },
            Offer {
                mem_mib: 511.0,
                ..offer("o", "a", 4096.0)
            },
            Offer {
                disk_mib: 1.0,
                ..offer("o", "a", 4096.0)
            },
            Offer {
                ports: vec![],
                ..offer("o", "a", 4096.0)
            },
        ] {
            assert_eq!(chosen(&[lacking], &[], at(0)), None);
        }
    }

    #[test]
    fn every_port_of_an_offer_can_be_chosen() {
        let offer = offer("o", "a", 1.0);
        let ports: BTreeSet<u16> = (0..11).filter_map(|hint| offer.port(hint)).collect();
        assert_eq!(ports.len(), 11);
        assert!(ports.contains(&31009) && ports.contains(&32000));
    }
}
