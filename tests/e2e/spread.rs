//! Members are spread by what the operator names, though hosts that would fit better stand together.

use std::collections::BTreeSet;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberView};

use crate::given_up::admin;
use crate::membership::{assert_complete, ids, loaded};
use crate::support::FAILOVER_DEADLINE;
use crate::support::discovery::Masters;
use crate::support::fleet::{Fleet, Room};

crate::for_both_flavours!(members_are_in_racks_of_their_own);

/// In three places. The small ones fit best: without being spread a cluster would take both of them first.
const RACKS: [Room; 5] = [
    room(4000, "rack:r1", ""),
    room(4000, "rack:r1", ""),
    room(12_000, "rack:r2", ""),
    room(12_000, "rack:r3", ""),
    room(12_000, "rack:r3", ""),
];

/// The same in zones, and a host of another region than the master's, which fits best as well.
const ZONES: [Room; 6] = [
    room(4000, "", "eu/a"),
    room(4000, "", "eu/a"),
    room(12_000, "", "eu/b"),
    room(12_000, "", "eu/c"),
    room(12_000, "", "eu/c"),
    room(4000, "", "us/d"),
];

const fn room(mem: u32, attributes: &'static str, domain: &'static str) -> Room {
    Room {
        mem,
        attributes,
        domain,
    }
}

/// Where a member is: in a rack or in a zone.
fn place(rooms: &[Room], fleet: &Fleet, member: &MemberView) -> &'static str {
    let room = rooms[usize::from(fleet.host(member)) - 1];
    match room.domain {
        "" => room.attributes,
        domain => domain,
    }
}

async fn members_are_in_racks_of_their_own(flavour: Flavour) {
    let places = ["rack:r1", "rack:r2", "rack:r3"];
    members_are_spread(flavour, &RACKS, &["--spread-by", "rack"], places).await;
}

/// Zones of Mesos' fault domains are what members are spread by if nothing else is said.
#[tokio::test]
async fn members_are_in_zones_of_their_own() {
    let places = ["eu/a", "eu/b", "eu/c"];
    members_are_spread(Flavour::Mariadb, &ZONES, &[], places).await;
}

/// Goal: each of three members is in another place, and so it is when the one in the third was replaced: it can be by one in its own
/// place, which it gives up.
async fn members_are_spread(
    flavour: Flavour,
    rooms: &[Room],
    settings: &[&str],
    places: [&'static str; 3],
) {
    let fleet = Fleet::with_rooms(flavour, rooms, settings).await;
    let cluster = fleet.create_running("spread", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&fleet, &cluster).await;
    let taken = |view: &ClusterView| -> BTreeSet<&'static str> {
        let members = view.members.iter();
        members.map(|it| place(rooms, &fleet, it)).collect()
    };
    let view = fleet.show(&cluster.name).await.unwrap();
    assert_eq!(taken(&view), BTreeSet::from(places), "{view:?}");

    let mut members = view.members.iter();
    let old = members.find(|it| place(rooms, &fleet, it) == places[2]);
    let old = old.unwrap().id;
    let words = [
        "replace",
        &cluster.name,
        "--member",
        &old.to_string(),
        "--wait",
    ];
    let done = admin(&fleet, &words, &cluster.account.password).await;
    assert!(done.status.success(), "{done:?}");
    let view = fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert!(!ids(&view).contains(&old), "{view:?}");
    assert_eq!(taken(&view), BTreeSet::from(places), "{view:?}");
    assert_complete(&fleet, &cluster, &mut load).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}
