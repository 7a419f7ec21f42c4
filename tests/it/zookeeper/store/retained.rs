//! What is kept of a cluster that was removed: stored with its removal, and brought back with it.

use std::time::Duration;

use cotton::cluster::id::MemberId;
use cotton::cluster::record::ClusterRecord;
use cotton::cluster::retained::Retained;
use cotton::cluster::slot::{Slot, SlotId};
use cotton::time::Timestamp;
use cotton::zookeeper::store::{StateStorage, StoreError, Version};
use uuid::Uuid;

use super::{World, name, record};

/// Goal: a deleted cluster's slots are never without a record that explains them. Method: removal with something to keep, read
/// back by the next scheduler, changed, and forgotten; in ZooKeeper and in files.
#[tokio::test]
async fn what_is_kept_of_a_removed_cluster_is_stored_with_its_removal() {
    for mut world in World::each().await {
        let record = with_a_slot("a");
        let version = world.commit(&record, None).await;
        let now = Timestamp::from_millis(10);
        let mut kept = Retained::of(&record, now, Duration::from_secs(1)).unwrap();
        let removed = world.store().remove(&name("a"), version, Some(&kept)).await;
        let first = removed.unwrap().unwrap();
        assert!(world.store().load(&name("a")).await.unwrap().is_none());
        world.reopen().await;
        let found = world.store().load_retained().await.unwrap();
        assert_eq!(found, [Ok((kept.clone(), first))]);
        kept.destroying = true;
        let second = world
            .store()
            .set_retained(&kept, Some(first))
            .await
            .unwrap();
        for stale in [
            world
                .store()
                .set_retained(&kept, Some(first))
                .await
                .map(|_| ()),
            world
                .store()
                .remove_retained(kept.incarnation(), first)
                .await,
        ] {
            assert!(
                matches!(stale, Err(StoreError::RetainedConflict(_))),
                "{stale:?}"
            );
        }
        let found = world.store().retained(kept.incarnation()).await.unwrap();
        assert_eq!(found, Some(Ok((kept.clone(), second))));
        // Twice: an answer that got lost is no reason to fail.
        for _ in 0..2 {
            let forgotten = world
                .store()
                .remove_retained(kept.incarnation(), second)
                .await;
            forgotten.unwrap();
        }
        assert_eq!(world.store().load_retained().await.unwrap(), []);
    }
}

/// Goal: a deleted cluster comes back in one step, and nobody else is in its way. Method: what is kept is brought back under its own
/// name or another one; with a taken name and with a version that is out of date nothing changes; in ZooKeeper and in files.
#[tokio::test]
async fn what_is_kept_of_a_deleted_cluster_comes_back() {
    for target in ["a", "b"] {
        for mut world in World::each().await {
            let is_local = world.storage != StateStorage::Zk;
            let record = with_a_slot("a");
            let version = world.commit(&record, None).await;
            let now = Timestamp::from_millis(10);
            let kept = Retained::of(&record, now, Duration::from_secs(1)).unwrap();
            let removed = world.store().remove(&name("a"), version, Some(&kept)).await;
            let first = removed.unwrap().unwrap();
            let back = kept.undeleted(&name(target), now).unwrap();
            if !is_local {
                let stale = world.store().undelete(&back, Version(first.0 + 1)).await;
                assert!(
                    matches!(stale, Err(StoreError::RetainedConflict(_))),
                    "{stale:?}"
                );
                assert!(world.store().load(&name(target)).await.unwrap().is_none());
            }
            let version = world.store().undelete(&back, first).await.unwrap();
            world.reopen().await;
            let loaded = world.load(target).await;
            assert_eq!((&loaded.record, loaded.version), (&back, version));
            assert!(loaded.is_published);
            // In files it goes in a step of its own.
            let left = world.store().load_retained().await.unwrap();
            assert_eq!(left.len(), usize::from(is_local));
            let forgotten = world.store().remove_retained(back.uuid, first).await;
            forgotten.unwrap();
            assert_eq!(world.store().load_retained().await.unwrap(), []);
            // It is deleted again, with what is kept of it now.
            let mut deleting = loaded.record;
            deleting.deleting = true;
            let version = world.commit(&deleting, Some(version)).await;
            let kept = Retained::of(&deleting, now, Duration::from_secs(2)).unwrap();
            let removed = world
                .store()
                .remove(&name(target), version, Some(&kept))
                .await;
            let again = removed.unwrap().unwrap();
            let found = world.store().retained(back.uuid).await.unwrap();
            assert_eq!(found, Some(Ok((kept.clone(), again))));
            // The name is taken.
            let mut other = super::record("a");
            other.uuid = Uuid::from_u128(8);
            world.commit(&other, None).await;
            let back = kept.undeleted(&name("a"), now).unwrap();
            let refused = world.store().undelete(&back, again).await;
            assert!(
                matches!(refused, Err(StoreError::Conflict(_))),
                "{refused:?}"
            );
            let found = world.store().retained(back.uuid).await.unwrap();
            assert_eq!(found, Some(Ok((kept, again))));
            assert_eq!(world.load("a").await.record, other);
        }
    }
}

/// Goal: what a crash left of a cluster that came back is not taken for what is kept of it later. Method: in files, the removal finds
/// the older one and replaces it.
#[tokio::test]
async fn what_is_kept_is_that_of_the_record_that_goes() {
    let world = World::new(true).await;
    let record = with_a_slot("a");
    let now = Timestamp::from_millis(10);
    let older = Retained::of(&record, now, Duration::from_secs(1)).unwrap();
    world.store().set_retained(&older, None).await.unwrap();
    let mut record = record;
    record.canary = 7;
    let version = world.commit(&record, None).await;
    let kept = Retained::of(&record, now, Duration::from_secs(2)).unwrap();
    let removed = world.store().remove(&name("a"), version, Some(&kept)).await;
    let version = removed.unwrap().unwrap();
    let found = world.store().retained(record.uuid).await.unwrap();
    assert_eq!(found, Some(Ok((kept, version))));
}

fn with_a_slot(name: &str) -> ClusterRecord {
    let mut record = record(name);
    let member = MemberId(0);
    let entry = record.members.get_mut(&member).unwrap();
    entry.slot = Some(Slot {
        id: SlotId::new(record.uuid, member, 1),
        agent_id: "agent".to_owned(),
        host: "host".to_owned(),
        port: 31000,
        size: record.spec.size,
        created_at: Timestamp::from_millis(2),
        used: true,
        agent_gone: false,
        launch_lost_at: None,
        unknown: Default::default(),
    });
    record.deleting = true;
    record
}
