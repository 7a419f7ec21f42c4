//! How far back the histories go that a cluster remembers.

use std::time::Duration;

use super::world::World;
use crate::cluster::{id::Epoch, record::MOST_LINEAGE, voters::Durability};

/// Goal: a cluster that fails over without end does not outgrow what ZooKeeper takes. Method: more failovers than are
/// remembered; the newest histories are there without a gap.
#[test]
fn the_oldest_histories_are_forgotten() {
    let mut world = World::running(3, Durability::Majority);
    let most = MOST_LINEAGE as u64;
    for epoch in 2..=most + 20 {
        // So many at once would make it back off.
        world.pass(Duration::from_secs(200));
        let master = world.record().published.master.unwrap().0;
        let killed = world.task_of(master);
        world.instance(master).process = None;
        world.report(&killed);
        let again = world.process();
        world.instance(master).process = Some(again);
        world.converge();
        world.pass(Duration::from_secs(2));
        world.converge();
        let record = world.record();
        assert_eq!(record.epoch, Epoch(epoch));
        let remembered: Vec<u64> = record.lineage.iter().map(|one| one.epoch.0).collect();
        let oldest = epoch.saturating_sub(most - 1).max(1);
        assert_eq!(remembered, (oldest..=epoch).collect::<Vec<_>>());
        assert_eq!(record.goal().lineage, record.lineage);
    }
}
