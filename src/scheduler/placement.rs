//! Where a member's task goes.
//!
//! Clusters are served first come, first served: each look goes through them in the order in which they were asked
//! for, and what an older one cannot use is there for the next. Nothing is held back until it would be enough for a large
//! member: nobody knows whether it ever is. Members of one cluster belong on different
//! agents: what takes one agent must take one member. Only when no other agent has shown up for a
//! while does a member share one, which is better than not running at all and is said in the
//! cluster's reason. The same goes for an agent that is going to be taken away for maintenance, and, without ever waiting for
//! longer, for racks, zones or whatever else members are to be spread by.
//!
//! Among agents that are equal in this, the one is taken on which the fewest further members of this size would fit:
//! room for large members is kept together.

use std::{collections::BTreeMap, time::Duration};

use super::maintenance::Window;
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
    /// The agent's attributes and the names of its fault domain, [`REGION`] and [`ZONE`].
    pub attributes: BTreeMap<String, String>,
    /// When the agent is going to be taken away for maintenance, if it is.
    pub unavailable: Option<Window>,
}

/// What the region of an agent's fault domain is called among its attributes. An attribute of this name goes before it.
pub const REGION: &str = "region";

/// What the zone of an agent's fault domain is called among its attributes. An attribute of this name goes before it.
pub const ZONE: &str = "zone";

/// What members of a cluster are spread by, beside agents: names of attributes, the most important one first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpreadBy(Vec<String>);

impl SpreadBy {
    /// By these names.
    pub fn names(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Where an offer is. An agent without one of the attributes is in no place of that name, and shares it with nobody.
    pub fn places(&self, offer: &Offer) -> BTreeMap<String, String> {
        let place = |name: &String| Some((name.clone(), offer.attributes.get(name)?.clone()));
        self.0.iter().filter_map(place).collect()
    }

    /// How many of the others are in the same place, name by name.
    fn shares(&self, offer: &Offer, others: &[Neighbour<'_>]) -> Vec<usize> {
        let share = |name: &String| {
            let here = offer.attributes.get(name);
            let same = |other: &&Neighbour<'_>| here.is_some() && other.places.get(name) == here;
            others.iter().filter(same).count()
        };
        self.0.iter().map(share).collect()
    }
}

/// Another member of the cluster: where it runs, or will.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    /// Its agent.
    pub agent_id: &'a str,
    /// See [`MemberRecord::places`](crate::cluster::record::MemberRecord::places).
    pub places: &'a BTreeMap<String, String>,
}

/// What a member wishes for.
#[derive(Debug)]
pub struct Wish<'a> {
    /// Room.
    pub size: &'a Size,
    /// To be away from these.
    pub others: Vec<Neighbour<'a>>,
    /// In which respects, beside agents.
    pub spread_by: &'a SpreadBy,
    /// The task, by which a port is chosen.
    pub task_id: &'a TaskId,
    /// From when on it is content with a place that it shares, or an agent that is going to be taken away.
    pub content_at: Timestamp,
    /// From when on it shares an agent; `None`: never.
    pub shares_agent_at: Option<Timestamp>,
    /// For how long its agent may be away for maintenance, however long it has to wait for one that is not away for longer; `None`: for ever.
    pub bears: Option<Duration>,
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
    pub fn has_room_for(&self, size: &Size) -> bool {
        self.cpus + ROUNDING >= size.cpus()
            && self.mem_mib + ROUNDING >= size.mem_mib() as f64
            && self.disk_mib + ROUNDING >= size.disk_mib() as f64
            && !self.ports.is_empty()
    }

    /// How many members of `size` fit in. Ports do not count: there are many.
    fn rooms(&self, size: &Size) -> u32 {
        let cpus = (self.cpus + ROUNDING) / size.cpus();
        let memory = (self.mem_mib + ROUNDING) / size.mem_mib() as f64;
        let disk = (self.disk_mib + ROUNDING) / size.disk_mib() as f64;
        cpus.min(memory).min(disk) as u32
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
    /// An agent that stays.
    unavailable: bool,
    /// An agent with no other member of the cluster.
    shares_agent: bool,
    /// A rack, zone or whatever with few others.
    shares_places: Vec<usize>,
    /// Best fit: few others of this size would have room.
    rooms: u32,
    /// The least memory left over, in MiB.
    memory_left_mib: u64,
    /// Only so that ties are decided the same way every time.
    offer_id: String,
}

impl Preference {
    /// When a member takes an offer that is its best one; `None`: never.
    fn takes_at(&self, wish: &Wish<'_>) -> Option<Timestamp> {
        let at_once = Timestamp::from_millis(0);
        let shares_place = self.shares_places.iter().any(|others| *others > 0);
        let content = if self.unavailable || shares_place {
            wish.content_at
        } else {
            at_once
        };
        if self.shares_agent {
            wish.shares_agent_at.map(|at| at.max(content))
        } else {
            Some(content)
        }
    }
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
    /// Only agents have room that run another member of the cluster, or share a place with one, or are going to be taken
    /// away; wait for others until then.
    WaitForSpread {
        /// When the member takes such an agent, if ever.
        until: Option<Timestamp>,
    },
    /// No offer has room.
    NoRoom,
}

/// Chooses among `offers` for a member.
pub fn place<'a>(
    offers: impl Iterator<Item = &'a Offer>,
    wish: &Wish<'_>,
    now: Timestamp,
) -> Placement<'a> {
    let preference = |offer: &Offer| Preference {
        unavailable: offer.unavailable.is_some(),
        shares_agent: (wish.others.iter()).any(|other| other.agent_id == offer.agent_id),
        shares_places: wish.spread_by.shares(offer, &wish.others),
        rooms: offer.rooms(wish.size),
        memory_left_mib: (offer.mem_mib - wish.size.mem_mib() as f64).max(0.0) as u64,
        offer_id: offer.id.clone(),
    };
    let stays = |offer: &Offer| match (offer.unavailable, wish.bears) {
        (Some(away), Some(most)) => !away.lasts_longer_than(most),
        _ => true,
    };
    let with_room = offers.filter(|offer| offer.has_room_for(wish.size) && stays(offer));
    let mut with_room = with_room.map(|offer| (preference(offer), offer)).peekable();
    if with_room.peek().is_none() {
        return Placement::NoRoom;
    }
    // One that it never takes is no better than another.
    let best = with_room
        .filter_map(|(preference, offer)| Some((preference.takes_at(wish)?, preference, offer)))
        .min_by(|(_, one, _), (_, other, _)| one.cmp(other));
    let Some((at, _, offer)) = best else {
        return Placement::WaitForSpread { until: None };
    };
    if now < at {
        return Placement::WaitForSpread { until: Some(at) };
    }
    match offer.port(port_hint(wish.task_id)) {
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
            attributes: BTreeMap::new(),
            unavailable: None,
        }
    }

    fn in_rack(rack: &str, offer: Offer) -> Offer {
        let attributes = [("rack".to_owned(), rack.to_owned())].into();
        Offer {
            attributes,
            ..offer
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// The offer that is chosen beside others on agents, each with its rack.
    fn chosen_beside(offers: &[Offer], others: &[(&str, &str)], now: Timestamp) -> Option<String> {
        let racks: Vec<BTreeMap<String, String>> = (others.iter())
            .map(|(_, rack)| [("rack".to_owned(), (*rack).to_owned())].into())
            .collect();
        let others = (others.iter().zip(&racks))
            .map(|((agent_id, _), places)| Neighbour { agent_id, places });
        let task_id = TaskId::from_wire("t");
        let wish = Wish {
            size: &Size::DEFAULT,
            others: others.collect(),
            spread_by: &SpreadBy::names(["rack".to_owned()]),
            task_id: &task_id,
            content_at: at(30),
            shares_agent_at: Some(at(40)),
            bears: None,
        };
        match place(offers.iter(), &wish, now) {
            Placement::Use { offer, .. } => Some(offer.id.clone()),
            Placement::WaitForSpread { .. } | Placement::NoRoom => None,
        }
    }

    /// The same, with the others all in the rack `r`.
    fn chosen(offers: &[Offer], occupied: &[&str], now: Timestamp) -> Option<String> {
        let others: Vec<(&str, &str)> = occupied.iter().map(|agent| (*agent, "r")).collect();
        chosen_beside(offers, &others, now)
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
        assert_eq!(chosen(&offers, &["a1"], at(39)), None);
        assert_eq!(chosen(&offers, &["a1"], at(40)).as_deref(), Some("o1"));
    }

    #[test]
    fn a_rack_of_its_own_wins_over_the_tighter_fit_and_another_one_is_taken_after_a_while() {
        let tight = in_rack("r1", offer("o1", "a1", 600.0));
        let own = in_rack("r2", offer("o2", "a2", 4096.0));
        let beside = [("a3", "r1")];
        let both = [tight.clone(), own];
        assert_eq!(chosen_beside(&both, &beside, at(0)).as_deref(), Some("o2"));
        let only = [tight];
        assert_eq!(chosen_beside(&only, &beside, at(29)), None);
        assert_eq!(chosen_beside(&only, &beside, at(30)).as_deref(), Some("o1"));
        assert_eq!(chosen_beside(&only, &[], at(0)).as_deref(), Some("o1"));
    }

    #[test]
    fn of_two_shared_racks_the_one_with_fewer_members_is_taken() {
        let offers = [
            in_rack("r1", offer("o1", "a1", 600.0)),
            in_rack("r2", offer("o2", "a2", 600.0)),
        ];
        let beside = [("a3", "r1"), ("a4", "r1"), ("a5", "r2")];
        let chosen = chosen_beside(&offers, &beside, at(30));
        assert_eq!(chosen.as_deref(), Some("o2"));
    }

    #[test]
    fn an_agent_that_is_going_to_be_taken_away_is_the_last_choice() {
        let leaving = Offer {
            unavailable: Some(Window {
                from: at(60),
                ends: None,
            }),
            ..offer("o1", "a1", 600.0)
        };
        let offers = [leaving.clone(), offer("o2", "a2", 4096.0)];
        assert_eq!(chosen(&offers, &[], at(0)).as_deref(), Some("o2"));
        assert_eq!(chosen(&offers[..1], &[], at(29)), None);
        assert_eq!(chosen(&offers[..1], &[], at(30)).as_deref(), Some("o1"));
    }

    #[test]
    fn room_for_many_is_kept_together() {
        let few = Offer {
            cpus: 1.0,
            ..offer("o2", "a2", 4096.0)
        };
        let offers = [offer("o1", "a1", 2048.0), few];
        assert_eq!(chosen(&offers, &[], at(0)).as_deref(), Some("o2"));
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
        let ports: std::collections::BTreeSet<u16> =
            (0..11).filter_map(|hint| offer.port(hint)).collect();
        assert_eq!(ports.len(), 11);
        assert!(ports.contains(&31009) && ports.contains(&32000));
    }
}
