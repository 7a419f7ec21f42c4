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

/// The small ones fit best: without racks a cluster would take both of them first.
const ROOMS: [Room; 5] = [
    Room {
        mem: 4000,
        attributes: "rack:r1",
    },
    Room {
        mem: 4000,
        attributes: "rack:r1",
    },
    Room {
        mem: 12_000,
        attributes: "rack:r2",
    },
    Room {
        mem: 12_000,
        attributes: "rack:r3",
    },
    Room {
        mem: 12_000,
        attributes: "rack:r3",
    },
];

fn rack(fleet: &Fleet, member: &MemberView) -> &'static str {
    ROOMS[usize::from(fleet.host(member)) - 1].attributes
}

fn racks(fleet: &Fleet, view: &ClusterView) -> BTreeSet<&'static str> {
    let racks = view.members.iter().map(|member| rack(fleet, member));
    racks.collect()
}

/// Goal: each of three members is in another rack, and so it is when one was replaced: it can be by one in its own rack, where
/// it gives up its place.
async fn members_are_in_racks_of_their_own(flavour: Flavour) {
    let fleet = Fleet::with_rooms(flavour, &ROOMS, &["--spread-by", "rack"]).await;
    let cluster = fleet.create_running("spread", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&fleet, &cluster).await;
    let view = fleet.show(&cluster.name).await.unwrap();
    assert_eq!(racks(&fleet, &view).len(), 3, "{view:?}");

    let mut members = view.members.iter();
    let old = members.find(|it| rack(&fleet, it) == "rack:r3").unwrap();
    let number = old.id.to_string();
    let words = ["replace", &cluster.name, "--member", &number, "--wait"];
    let done = admin(&fleet, &words, &cluster.account.password).await;
    assert!(done.status.success(), "{done:?}");
    let view = fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert!(!ids(&view).contains(&old.id), "{view:?}");
    assert_eq!(racks(&fleet, &view).len(), 3, "{view:?}");
    assert_complete(&fleet, &cluster, &mut load).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}
