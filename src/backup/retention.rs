//! Which backups are to go. Pure.
//!
//! Of a cluster that lives go those that its rule does not keep ([`BackupKeep`]), and never the newest, nor the newest that was verified and found good. In favour of one
//! that was found bad, or that is still to be verified, none goes. What former clusters of that name, or
//! of a name that no cluster has, have left goes only where an age is set for that: the scheduler cannot tell a cluster that was deleted from one
//! of another installation. What cannot be read is left alone. What was not completed goes after a week.
//!
//! Archived binlogs stay as long as a backup is kept behind which they can be replayed ([`archive_fate`]).

use std::{collections::BTreeSet, time::Duration};

use uuid::Uuid;

use super::{
    manifest::Manifest,
    removal::Survey,
    store::{Listed, StoreError},
};
use crate::{
    cluster::{backup::BackupId, backup_rules::BackupKeep, gtid::Position, id::ClusterName},
    time::Timestamp,
};

/// For how long a folder without a manifest may be a backup that is being made.
const UNFINISHED: Duration = Duration::from_secs(7 * 86_400);

/// For how long archived binlogs stay that no known backup needs. One that is begun meanwhile finds what it needs, and so does one that was given up and is completed all
/// the same; not every store shows it before that.
const UNNEEDED: Duration = Duration::from_secs(86_400);

/// How far a slave may be behind when a backup of it is asked for, with a good margin: it is chosen only when it has caught up.
const BEHIND: Duration = Duration::from_secs(3600);

/// What there is to know of a cluster that lives.
#[derive(Debug, Clone)]
pub struct Living {
    /// Its incarnation.
    pub incarnation: Uuid,
    /// Which of its backups are kept.
    pub keep: BackupKeep,
    /// Whether it has a complete backup, as far as its record says.
    pub has_backup: bool,
    /// Its backups that are still to be verified.
    pub unverified: BTreeSet<BackupId>,
}

/// What decides which backups of one name are to go.
#[derive(Debug)]
pub struct Rule<'a> {
    /// The name.
    pub cluster: &'a ClusterName,
    /// The cluster that has it, if one does.
    pub living: Option<Living>,
    /// Incarnations of clusters that live under other names now: what they have left under this one is theirs.
    pub elsewhere: BTreeSet<Uuid>,
    /// How long backups of former clusters are kept; for ever if nothing is said.
    pub keep_deleted: Option<Duration>,
    /// Backups that are being made or verified, and those that clusters are being made from.
    pub in_use: &'a BTreeSet<BackupId>,
}

/// The backups that are to go, oldest first, and what is left of unfinished ones.
pub fn to_go(survey: &Survey, rule: &Rule<'_>, now: Timestamp) -> Vec<BackupId> {
    let mut going = Vec::new();
    let mut newer = 0;
    let last_good = last_good(survey, rule);
    // The newest first.
    for listed in survey.complete.iter().rev() {
        let Ok(manifest) = &listed.manifest else {
            continue;
        };
        // One that somebody has copied here is theirs.
        let is_own = listed.id == manifest.id && manifest.cluster == *rule.cluster;
        if !is_own || listed.id.asked_at().is_none() {
            continue;
        }
        let is_kept = rule.in_use.contains(&listed.id) || last_good == Some(&listed.id);
        if goes(manifest, rule, newer, now) && !is_kept {
            going.push(listed.id.clone());
        }
        newer += usize::from(is_of(manifest, rule) && replaces_others(listed, rule));
    }
    going.reverse();
    let left = survey.unfinished.iter().filter(|id| {
        let asked_at = id.asked_at().map(|(_, at)| at);
        let is_old = asked_at.is_some_and(|at| now.since(at) >= UNFINISHED);
        is_old && !rule.in_use.contains(*id)
    });
    going.extend(left.cloned());
    going
}

/// Whether older ones may go because there is this one: not if it is bad, and not while nobody knows though that is to be found out.
fn replaces_others(listed: &Listed, rule: &Rule<'_>) -> bool {
    let living = rule.living.as_ref();
    let is_unverified = living.is_some_and(|it| it.unverified.contains(&listed.id));
    match &listed.verified {
        Some(verified) => verified.good,
        None => !is_unverified,
    }
}

/// The newest backup of the living cluster that was found good when it was verified. It stays until a newer one is: newer ones may be those that were not.
fn last_good<'a>(survey: &'a Survey, rule: &Rule<'_>) -> Option<&'a BackupId> {
    let good = survey.complete.iter().rev().find(|listed| {
        let is_good = listed.verified.as_ref().is_some_and(|it| it.good);
        let manifest = listed.manifest.as_ref().ok();
        is_good && manifest.is_some_and(|it| it.id == listed.id && is_of(it, rule))
    })?;
    Some(&good.id)
}

/// What becomes of a cluster's archived binlogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// All stay.
    Stay,
    /// All stay, for a reason that somebody should look at, as part of a sentence.
    Doubt(String),
    /// Those go that none of these backups needs, if they were archived before a moment. The last one stays.
    Prune {
        /// What the backups hold.
        bases: Vec<Position>,
        /// The moment.
        before: Timestamp,
    },
    /// All go that were archived before a moment, the last one too.
    Remove {
        /// The moment.
        before: Timestamp,
    },
}

/// What becomes of the archive of an incarnation that the rule's name belongs to, or belonged to. `survey` is what the store has of that name
/// after backups were removed; `restoring` are the backups that clusters are being made from, wherever they lie.
///
/// Nothing goes on a guess: a manifest that cannot be read may be that of a backup which needs everything.
pub fn archive_fate(
    survey: &Survey,
    restoring: &[Result<Manifest, StoreError>],
    incarnation: Uuid,
    rule: &Rule<'_>,
    now: Timestamp,
) -> Fate {
    if rule.elsewhere.contains(&incarnation) {
        return Fate::Stay;
    }
    let listed = survey.complete.iter();
    let unreadable = listed.clone().find(|listed| listed.manifest.is_err());
    if let Some(listed) = unreadable {
        return Fate::Doubt(format!("the manifest of {} cannot be read", listed.id));
    }
    if restoring.iter().any(Result::is_err) {
        return Fate::Doubt(
            "the manifest of a backup that is being restored cannot be read".to_owned(),
        );
    }
    let complete = listed.filter_map(|listed| listed.manifest.as_deref().ok());
    let restored = restoring
        .iter()
        .filter_map(|manifest| manifest.as_ref().ok());
    let bases: Vec<Position> = complete
        .chain(restored)
        .filter(|manifest| manifest.uuid == incarnation)
        .map(|manifest| manifest.position.clone())
        .collect();
    let living = rule.living.as_ref();
    let living = living.filter(|living| living.incarnation == incarnation);
    // A backup that is being made, or whose end was not heard, may be complete in a moment.
    let own = |id: &BackupId| {
        let (name, at) = id.asked_at()?;
        (name == *rule.cluster).then_some(at)
    };
    let coming = survey.unfinished.iter().chain(rule.in_use).filter_map(own);
    let first_coming = coming.min();
    let unneeded = now.minus(UNNEEDED);
    match (living, rule.keep_deleted) {
        // What other installations have in the same store is not known.
        (None, None) => Fate::Stay,
        // One that is completed behind later ones begins before them.
        (Some(_), _) | (None, Some(_)) if !bases.is_empty() => Fate::Prune {
            bases,
            before: first_coming.map_or(unneeded, |at| unneeded.min(at.minus(BEHIND))),
        },
        _ if first_coming.is_some() || !survey.unfinished.is_empty() => Fate::Stay,
        (Some(living), _) if living.has_backup => {
            Fate::Doubt("the last complete backup of the cluster is not in the store".to_owned())
        }
        (Some(_), _) => Fate::Prune {
            bases,
            before: unneeded,
        },
        (None, Some(age)) => Fate::Remove {
            before: now.minus(age.max(UNNEEDED)),
        },
    }
}

fn is_of(manifest: &Manifest, rule: &Rule<'_>) -> bool {
    let living = rule.living.as_ref();
    living.is_some_and(|living| living.incarnation == manifest.uuid)
}

fn goes(manifest: &Manifest, rule: &Rule<'_>, newer: usize, now: Timestamp) -> bool {
    match &rule.living {
        Some(living) if living.incarnation == manifest.uuid => {
            living.keep.lets_go(newer, manifest.ended_at, now)
        }
        _ if rule.elsewhere.contains(&manifest.uuid) => false,
        _ => rule
            .keep_deleted
            .is_some_and(|age| now.since(manifest.ended_at) >= age),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::{
        backup::{
            manifest::{Form, ManifestError},
            store::StoreError,
            verified::{self, Verified},
        },
        cluster::{
            flavour::{Flavour, ServerVersion},
            gtid::Position,
            id::{Epoch, MemberId},
        },
    };

    const LIVING: Uuid = Uuid::from_u128(1);
    const FORMER: Uuid = Uuid::from_u128(2);
    const ELSEWHERE: Uuid = Uuid::from_u128(3);

    fn day(number: u64) -> Timestamp {
        Timestamp::from_millis(1_769_904_000_000 + number * 86_400_000)
    }

    fn orders() -> ClusterName {
        "orders".parse().unwrap()
    }

    fn made(number: u64, uuid: Uuid) -> Listed {
        let id = BackupId::new(&orders(), day(number));
        let manifest = Manifest {
            id: id.clone(),
            cluster: orders(),
            uuid,
            epoch: Epoch(1),
            member: MemberId(1),
            flavour: Flavour::Mariadb,
            version: ServerVersion::new(10, 11, 14),
            position: Position::empty(Flavour::Mariadb),
            binlog_state: None,
            admin_user: "admin".to_owned(),
            cluster_user: "app".to_owned(),
            begun_at: day(number),
            ended_at: day(number),
            data_bytes: 1,
            form: Form::Mbstream,
            compression: "zstd".to_owned(),
            key_id: None,
            objects: Vec::new(),
        };
        Listed {
            id,
            manifest: Ok(Box::new(manifest)),
            verified: None,
        }
    }

    /// The same, verified.
    fn verified(number: u64, good: bool) -> Listed {
        let made = made(number, LIVING);
        let verified = Verified {
            format: verified::FORMAT,
            id: made.id.clone(),
            sha256: String::new(),
            at: day(number),
            good,
            problem: None,
            seconds: 1,
            tables: 1,
            rows: 1,
        };
        Listed {
            verified: Some(Box::new(verified)),
            ..made
        }
    }

    /// Days whose backups go, on day 20.
    fn going(survey: &Survey, keep: &str, keep_deleted: Option<u64>, in_use: &[u64]) -> Vec<u64> {
        let living = Living {
            incarnation: LIVING,
            keep: keep.parse().unwrap(),
            has_backup: true,
            unverified: BTreeSet::new(),
        };
        going_by(survey, living, keep_deleted, in_use)
    }

    fn going_by(
        survey: &Survey,
        living: Living,
        keep_deleted: Option<u64>,
        in_use: &[u64],
    ) -> Vec<u64> {
        let in_use = in_use.iter().map(|n| BackupId::new(&orders(), day(*n)));
        let rule = Rule {
            cluster: &orders(),
            living: Some(living),
            elsewhere: [ELSEWHERE].into(),
            keep_deleted: keep_deleted.map(|days| Duration::from_secs(days * 86_400)),
            in_use: &in_use.collect(),
        };
        let number = |id: &BackupId| {
            let at = id.asked_at().unwrap().1;
            (at.as_millis() - day(0).as_millis()) / 86_400_000
        };
        to_go(survey, &rule, day(20)).iter().map(number).collect()
    }

    #[test]
    fn old_ones_go_and_the_newest_stays() {
        let complete = (1..=5).map(|n| made(n, LIVING)).collect();
        let survey = Survey {
            complete,
            unfinished: Vec::new(),
        };
        assert!(going(&survey, "all", None, &[]).is_empty());
        assert_eq!(going(&survey, "2", None, &[]), [1, 2, 3]);
        assert_eq!(going(&survey, "1d", None, &[]), [1, 2, 3, 4]);
        assert_eq!(going(&survey, "3,17d", None, &[]), [1, 2]);
        assert_eq!(going(&survey, "1", None, &[2]), [1, 3, 4]);
    }

    /// Goal: the last one that is known to be good does not go in favour of others. Method: newer ones that failed, were not verified, or are good.
    #[test]
    fn the_last_verified_one_stays_until_a_newer_one_is_verified() {
        let going = |complete| {
            let survey = Survey {
                complete,
                unfinished: Vec::new(),
            };
            going(&survey, "1", None, &[])
        };
        let older = || vec![verified(1, true), verified(2, true)];
        let with = |newer: Vec<Listed>| older().into_iter().chain(newer).collect::<Vec<_>>();
        assert_eq!(going(with(vec![verified(3, false)])), [1]);
        assert_eq!(going(with(vec![made(3, LIVING)])), [1]);
        assert_eq!(
            going(with(vec![verified(3, false), made(4, LIVING)])),
            [1, 3]
        );
        assert_eq!(going(with(vec![verified(3, true)])), [1, 2]);
        assert_eq!(
            going(with(vec![verified(3, true), verified(4, false)])),
            [1, 2]
        );
    }

    /// Goal: what may be the last good one does not go in favour of one that is bad, or may turn out to be. Method: newer ones that were found bad, that are
    /// still to be verified, and that nobody verifies.
    #[test]
    fn none_goes_in_favour_of_one_that_is_not_good() {
        let going = |complete, unverified: &[u64]| {
            let unverified = unverified.iter().map(|n| BackupId::new(&orders(), day(*n)));
            let living = Living {
                incarnation: LIVING,
                keep: "1".parse().unwrap(),
                has_backup: true,
                unverified: unverified.collect(),
            };
            going_by(&having(complete), living, None, &[])
        };
        let two = || vec![made(1, LIVING), made(2, LIVING)];
        assert_eq!(going(two(), &[]), [1]);
        assert!(going(two(), &[2]).is_empty());
        assert!(going(two(), &[1, 2]).is_empty());
        let bad = || verified(3, false);
        assert!(going(vec![made(1, LIVING), bad()], &[]).is_empty());
        assert_eq!(going(two().into_iter().chain([bad()]).collect(), &[]), [1]);
        // A bad one is no better than others when there is a newer one.
        assert_eq!(going(vec![bad(), verified(4, true)], &[]), [3]);
    }

    /// Goal: a cluster that was brought back under another name keeps what it has under the old one. Method: backups of it and of one that is gone.
    #[test]
    fn what_belongs_to_a_cluster_of_another_name_now_stays() {
        let complete = vec![made(1, FORMER), made(2, ELSEWHERE), made(3, LIVING)];
        let survey = having(complete);
        assert_eq!(going(&survey, "all", Some(1), &[]), [1]);
        assert_eq!(fate(&survey, None, Some(1), &[], ELSEWHERE), Fate::Stay);
    }

    /// Goal: what is not certainly a surplus backup of this cluster stays. Method: one of each kind of other things.
    #[test]
    fn what_is_not_certainly_its_own_stays() {
        let mut copied = made(3, LIVING);
        copied.id = "orders/archive-of-march".parse().unwrap();
        let mut damaged = made(4, LIVING);
        let source = ManifestError::Digest;
        let id = damaged.id.clone();
        damaged.manifest = Err(StoreError::Manifest { id, source });
        // The damaged one is the newest: it does not count as a good one.
        let complete = vec![made(1, FORMER), made(2, LIVING), copied, damaged];
        let survey = Survey {
            complete,
            unfinished: Vec::new(),
        };
        assert!(going(&survey, "1,1d", None, &[]).is_empty());
        assert_eq!(going(&survey, "1,1d", Some(19), &[]), [1]);
        assert!(going(&survey, "1,1d", Some(20), &[]).is_empty());
    }

    #[test]
    fn what_was_not_completed_goes_after_a_week() {
        let unfinished = [12, 13, 14].map(|n| BackupId::new(&orders(), day(n)));
        let survey = Survey {
            complete: vec![made(1, LIVING)],
            unfinished: unfinished.to_vec(),
        };
        assert_eq!(going(&survey, "1", None, &[]), [12, 13]);
        assert_eq!(going(&survey, "1", None, &[12]), [13]);
    }

    fn fate(
        survey: &Survey,
        living: Option<bool>,
        keep_deleted: Option<u64>,
        in_use: &[u64],
        incarnation: Uuid,
    ) -> Fate {
        let in_use = in_use.iter().map(|n| BackupId::new(&orders(), day(*n)));
        let rule = Rule {
            cluster: &orders(),
            living: living.map(|has_backup| Living {
                incarnation: LIVING,
                keep: "1".parse().unwrap(),
                has_backup,
                unverified: BTreeSet::new(),
            }),
            elsewhere: [ELSEWHERE].into(),
            keep_deleted: keep_deleted.map(|days| Duration::from_secs(days * 86_400)),
            in_use: &in_use.collect(),
        };
        archive_fate(survey, &[], incarnation, &rule, day(20))
    }

    fn having(complete: Vec<Listed>) -> Survey {
        Survey {
            complete,
            unfinished: Vec::new(),
        }
    }

    /// Goal: archived binlogs stay for each backup that is kept, and wherever anything is in doubt. Method: one of each.
    #[test]
    fn archived_binlogs_stay_for_backups_and_in_doubt() {
        let empty = Position::empty(Flavour::Mariadb);
        let own = having(vec![made(3, LIVING), made(4, FORMER)]);
        let bases = vec![empty];
        let before = day(19);
        let pruned = Fate::Prune { bases, before };
        assert_eq!(fate(&own, Some(true), None, &[], LIVING), pruned);
        // Of a former cluster only where an age is set.
        assert_eq!(fate(&own, Some(true), None, &[], FORMER), Fate::Stay);
        assert_eq!(fate(&own, Some(true), Some(1), &[], FORMER), pruned);

        // One that was asked for earlier and may be completed yet begins earlier, too.
        let bases = vec![Position::empty(Flavour::Mariadb)];
        let before = day(17).minus(BEHIND);
        let pruned = Fate::Prune { bases, before };
        let mut unfinished = having(vec![made(18, LIVING)]);
        assert_eq!(fate(&unfinished, Some(true), None, &[17], LIVING), pruned);
        unfinished.unfinished = vec![BackupId::new(&orders(), day(17))];
        assert_eq!(fate(&unfinished, Some(true), None, &[], LIVING), pruned);

        let mut damaged = made(4, LIVING);
        let source = ManifestError::Digest;
        let id = damaged.id.clone();
        damaged.manifest = Err(StoreError::Manifest { id, source });
        let damaged = having(vec![made(3, LIVING), damaged]);
        let doubt = |fate: Fate| matches!(fate, Fate::Doubt(_));
        assert!(doubt(fate(&damaged, Some(true), None, &[], LIVING)));
        assert!(doubt(fate(&damaged, None, Some(1), &[], FORMER)));
    }

    #[test]
    fn archived_binlogs_without_a_backup_go_when_none_can_come() {
        let none = having(Vec::new());
        let doubt = fate(&none, Some(true), None, &[], LIVING);
        assert!(matches!(doubt, Fate::Doubt(_)), "{doubt:?}");
        let (bases, before) = (Vec::new(), day(19));
        let pruned = Fate::Prune { bases, before };
        assert_eq!(fate(&none, Some(false), None, &[], LIVING), pruned);
        assert_eq!(fate(&none, Some(false), None, &[20], LIVING), Fate::Stay);
        let unfinished = Survey {
            complete: Vec::new(),
            unfinished: vec![BackupId::new(&orders(), day(19))],
        };
        assert_eq!(
            fate(&unfinished, Some(false), None, &[], LIVING),
            Fate::Stay
        );
        assert_eq!(fate(&none, None, None, &[], FORMER), Fate::Stay);
        let removed = Fate::Remove { before: day(15) };
        assert_eq!(fate(&none, None, Some(5), &[], FORMER), removed);
        assert_eq!(fate(&none, Some(false), Some(5), &[], FORMER), removed);
    }
}
