//! What counters and gauges tell of a cluster's backups, from how it was shown and is shown now.
//!
//! What a scheduler has found at its start was counted by another one: only what has ended before its eyes is counted. Gauges show what there is.

use tracing::warn;

use crate::{
    cluster::{
        id::ClusterName,
        verification::VerificationView,
        view::{BackupStanding, ClusterView},
    },
    http::metrics::Metrics,
};

/// Counts and notes what has changed; `after` is `None` when the cluster is gone. True when a backup is complete or was found good, as earlier ones may be
/// surplus then.
pub fn tell(
    metrics: &Metrics,
    name: &ClusterName,
    before: Option<&ClusterView>,
    after: Option<&ClusterView>,
) -> bool {
    let until = after.and_then(|view| view.standing.recoverable_until);
    metrics.tell_recoverable(name, until);
    let standing = after.and_then(|view| view.standing.backups.as_ref());
    note_age(metrics, name, standing);
    note_verified(metrics, name, after.is_some(), standing);
    let (Some(before), Some(after)) = (before, after) else {
        return false;
    };
    let is_complete = count_backup(metrics, before, after);
    let is_good = count_verification(metrics, name, before, after);
    is_complete || is_good
}

fn labels(name: &ClusterName) -> Vec<(String, String)> {
    vec![("cluster".to_owned(), name.to_string())]
}

fn note_age(metrics: &Metrics, name: &ClusterName, standing: Option<&BackupStanding>) {
    let ages = &metrics.backup_complete_timestamp_seconds;
    match standing.and_then(|it| it.last_complete.as_ref()) {
        Some(complete) => {
            let seconds = complete.asked_at.as_millis() / 1000;
            ages.get_or_create(&labels(name)).set(seconds as i64);
        }
        // The last one may have been removed by request. An age that stays says that there is one.
        None => {
            ages.remove(&labels(name));
        }
    }
}

fn note_verified(
    metrics: &Metrics,
    name: &ClusterName,
    is_there: bool,
    standing: Option<&BackupStanding>,
) {
    let (ages, times) = (
        &metrics.backup_verified_timestamp_seconds,
        &metrics.backup_verification_seconds,
    );
    if !is_there {
        ages.remove(&labels(name));
        times.remove(&labels(name));
        return;
    }
    let Some(now) = standing.and_then(|it| it.verification.as_ref()) else {
        return;
    };
    let good = now.last.as_ref().filter(|last| last.good);
    if let Some(good) = good.or(now.last_good.as_ref()) {
        let seconds = good.at.as_millis() / 1000;
        ages.get_or_create(&labels(name)).set(seconds as i64);
        let took = good.seconds.unwrap_or_default();
        times.get_or_create(&labels(name)).set(took as i64);
    }
}

/// Counts the backup that has ended, if one has, and tells whether it is complete.
fn count_backup(metrics: &Metrics, before: &ClusterView, after: &ClusterView) -> bool {
    let last = |view: &ClusterView| view.standing.last_backup.as_ref().map_or(0, |it| it.number);
    let ended = after.standing.last_backup.as_ref();
    match ended.filter(|ended| ended.number > last(before)) {
        Some(ended) if ended.done => {
            metrics.backups_complete.inc();
            true
        }
        Some(_) => {
            metrics.backups_failed.inc();
            false
        }
        None => false,
    }
}

/// Counts the verification that has ended, if one has, and tells whether it has found its backup good. One that has failed is told as loudly as can be.
fn count_verification(
    metrics: &Metrics,
    cluster: &ClusterName,
    before: &ClusterView,
    after: &ClusterView,
) -> bool {
    let of = |view: &ClusterView| -> Option<VerificationView> {
        view.standing.backups.as_ref()?.verification.clone()
    };
    let last = of(before).and_then(|before| before.last);
    let now = of(after).and_then(|now| now.last);
    let Some(ended) = now.filter(|now| last.as_ref() != Some(now)) else {
        return false;
    };
    if ended.good {
        metrics.backups_verified.inc();
    } else {
        metrics.backup_verifications_failed.inc();
        let (id, why) = (&ended.id, &ended.sentence);
        warn!(%cluster, %id, why, "a backup cannot be relied on: its verification has failed");
    }
    ended.good
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::time::Duration;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        cluster::{
            backup::{BackupOutcome, CompleteBackup},
            size::Size,
            verification::VerificationOutcome,
            view::ClusterState,
            voters::Durability,
        },
        time::Timestamp,
    };

    /// When everything here begins: 1000 s after 1970, and half a second.
    const BEGIN: Timestamp = Timestamp::from_millis(1_000_500);

    fn after(seconds: u64) -> Timestamp {
        BEGIN.plus(Duration::from_secs(seconds))
    }

    /// A cluster in a scheduler with a store.
    fn cluster() -> ClusterView {
        let standing = serde_json::json!({
            "incarnation": uuid::Uuid::from_u128(1), "schedule": "every 6h", "keep": "7",
        });
        let mut view = ClusterView {
            name: "orders".parse().unwrap(),
            user: "u".to_owned(),
            num_nodes: 1,
            size: Size::DEFAULT,
            flavour: None,
            version: None,
            durability: Durability::Async,
            state: ClusterState::Running,
            reason: String::new(),
            cluster_url: String::new(),
            epoch: 1,
            standing: Default::default(),
            members: Vec::new(),
        };
        view.standing.backups = serde_json::from_value(standing).unwrap();
        view
    }

    /// A backup of this number has ended.
    fn ended(view: &ClusterView, number: u64, done: bool) -> ClusterView {
        let mut view = view.clone();
        let id = format!("orders/{number}").parse().unwrap();
        let standing = view.standing.backups.as_mut().unwrap();
        if done {
            standing.last_complete = Some(CompleteBackup {
                id: format!("orders/{number}").parse().unwrap(),
                asked_at: after(number),
                url: None,
            });
        }
        view.standing.last_backup = Some(BackupOutcome {
            number,
            id,
            done,
            at: after(number),
            sentence: String::new(),
            scheduled: false,
            removed: false,
        });
        view
    }

    /// A verification has ended at this second.
    fn verified(view: &ClusterView, second: u64, good: bool) -> ClusterView {
        let mut view = view.clone();
        let standing = view.standing.backups.as_mut().unwrap();
        let before = standing.verification.take();
        let before = before.and_then(|it| it.last.filter(|last| last.good).or(it.last_good));
        standing.verification = Some(VerificationView {
            under_way: None,
            waiting: 0,
            unverified: Vec::new(),
            problem: None,
            last: Some(VerificationOutcome {
                id: "orders/1".parse().unwrap(),
                at: after(second),
                good,
                sentence: String::new(),
                seconds: good.then_some(12),
            }),
            last_good: before.filter(|_| !good),
        });
        view
    }

    struct Shown {
        metrics: Metrics,
        before: Option<ClusterView>,
    }

    impl Shown {
        fn new() -> Self {
            Self {
                metrics: Metrics::register(Registry::default()),
                before: None,
            }
        }

        fn shows(&mut self, after: Option<ClusterView>) -> bool {
            let name = "orders".parse().unwrap();
            let is_new = tell(&self.metrics, &name, self.before.as_ref(), after.as_ref());
            self.before = after;
            is_new
        }

        /// What `/metrics` says of backups, without what is zero.
        fn told(&self) -> Vec<String> {
            let text = self.metrics.text();
            let of_backups = text.lines().filter_map(|line| {
                let line = line.strip_prefix("cotton_scheduler_")?;
                let is_of = line.starts_with("backup") || line.starts_with("recoverable");
                (is_of && !line.ends_with(" 0")).then(|| line.to_owned())
            });
            let mut lines: Vec<String> = of_backups.collect();
            lines.sort();
            lines
        }
    }

    #[test]
    fn backups_are_counted_and_the_age_of_the_last_one_is_told() {
        let mut shown = Shown::new();
        assert!(!shown.shows(Some(cluster())));
        assert_eq!(shown.told(), Vec::<String>::new());
        let first = ended(&cluster(), 1, true);
        assert!(shown.shows(Some(first.clone())));
        let age = "backup_complete_timestamp_seconds{cluster=\"orders\"} 1001";
        assert_eq!(shown.told(), [age, "backups_complete_total 1"]);
        // Whatever else changes, it is counted once.
        assert!(!shown.shows(Some(first.clone())));
        let failed = ended(&first, 2, false);
        assert!(!shown.shows(Some(failed.clone())));
        let both = ["backups_complete_total 1", "backups_failed_total 1"];
        assert_eq!(shown.told(), [age, both[0], both[1]]);
        // The last one was removed: no age says that there is one.
        let mut removed = failed;
        let standing = removed.standing.backups.as_mut().unwrap();
        standing.last_complete = None;
        shown.shows(Some(removed));
        assert_eq!(shown.told(), both);
        shown.shows(Some(ended(&first, 3, true)));
        let later = age.replace("1001", "1003");
        let counted = ["backups_complete_total 2", "backups_failed_total 1"];
        assert_eq!(shown.told(), [&later, counted[0], counted[1]]);
        shown.shows(None);
        assert_eq!(shown.told(), counted);
    }

    /// Goal: a successor tells how old the last backup is, and counts nothing that was counted.
    #[test]
    fn what_is_found_at_the_start_is_told_and_not_counted() {
        let mut shown = Shown::new();
        let found = verified(&ended(&cluster(), 1, true), 5, true);
        assert!(!shown.shows(Some(found)));
        let expected = [
            "backup_complete_timestamp_seconds{cluster=\"orders\"} 1001",
            "backup_verification_seconds{cluster=\"orders\"} 12",
            "backup_verified_timestamp_seconds{cluster=\"orders\"} 1005",
        ];
        assert_eq!(shown.told(), expected);
    }

    /// Goal: a backup that is bad is counted, and the last good one is still told. Method: good, bad, good, gone.
    #[test]
    fn verifications_are_counted_and_the_last_good_one_is_told() {
        let mut shown = Shown::new();
        shown.shows(Some(cluster()));
        let good = verified(&cluster(), 5, true);
        assert!(shown.shows(Some(good.clone())));
        let gauges = |second: u64| {
            [
                "backup_verification_seconds{cluster=\"orders\"} 12".to_owned(),
                format!("backup_verified_timestamp_seconds{{cluster=\"orders\"}} {second}"),
            ]
        };
        let all = |second, counters: &[&str]| {
            let counters = counters.iter().map(|line| (*line).to_owned());
            let [took, at] = gauges(second);
            let mut lines: Vec<String> = counters.chain([took, at]).collect();
            lines.sort();
            lines
        };
        assert_eq!(shown.told(), all(1005, &["backups_verified_total 1"]));
        let bad = verified(&good, 6, false);
        assert!(!shown.shows(Some(bad.clone())));
        let failed = "backup_verifications_failed_total 1";
        let counted = [failed, "backups_verified_total 1"];
        assert_eq!(shown.told(), all(1005, &counted));
        assert!(shown.shows(Some(verified(&bad, 7, true))));
        let counted = [failed, "backups_verified_total 2"];
        assert_eq!(shown.told(), all(1007, &counted));
        shown.shows(None);
        assert_eq!(shown.told(), counted);
    }

    #[test]
    fn up_to_when_a_cluster_is_recoverable_is_told_while_it_is() {
        let mut shown = Shown::new();
        let until = |seconds: Option<u64>| {
            let mut view = cluster();
            view.standing.recoverable_until = seconds.map(after);
            Some(view)
        };
        let line = |seconds| format!("recoverable_until_seconds{{cluster=\"orders\"}} {seconds}");
        for (seconds, told) in [
            (None, None),
            (Some(1), Some(line(1001))),
            (Some(11), Some(line(1011))),
            (None, None),
        ] {
            shown.shows(until(seconds));
            assert_eq!(shown.told(), Vec::from_iter(told));
        }
        shown.shows(until(Some(1)));
        shown.shows(None);
        assert_eq!(shown.told(), Vec::<String>::new());
    }
}
