//! Goal: what an earlier version of Cotton has stored is understood by this one, and nobody changes a format by
//! accident. Method: samples of every stored format, in `tests/fixtures/formats/<format>-<number>.json`. All are read; what
//! they say must be said again when they are written, the newest of each word for word. A field that is added
//! does not compile here until it is named, and then a sample must have it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;

use cotton::cluster::control::{Goal, Report, TaskData};
use cotton::cluster::record::{ClusterRecord, MemberRecord, TaskRecord};
use cotton::cluster::retained::Retained;
use cotton::cluster::slot::Slot;
use cotton::executor::promise::Promise;
use cotton::zookeeper::leader::Leader;
use cotton::zookeeper::store::FrameworkRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The names of a struct's fields, all of them: without `..` a new one does not compile.
macro_rules! fields {
    ($kind:ident { $($field:ident),* $(,)? }) => {{
        #[allow(dead_code, reason = "it is compiled, not called")]
        fn all(it: $kind) {
            let $kind { $($field: _),* } = it;
        }
        &[$(stringify!($field)),*]
    }};
}

/// A stored format.
struct Format {
    name: &'static str,
    /// Where the fields are in a sample: a JSON pointer.
    at: &'static str,
    fields: &'static [&'static str],
    rewrite: fn(Value) -> Result<Value, String>,
}

fn rewrite<T: Serialize + DeserializeOwned>(sample: Value) -> Result<Value, String> {
    let read: T = serde_json::from_value(sample).map_err(|error| error.to_string())?;
    serde_json::to_value(read).map_err(|error| error.to_string())
}

fn formats() -> Vec<Format> {
    let record = fields!(ClusterRecord {
        backups,
        archive,
        restore,
        format,
        uuid,
        spec,
        sealed_password,
        user,
        created_at,
        deleting,
        server,
        epoch,
        mastership,
        epoch_since,
        unopened,
        voters,
        terms,
        change,
        canary,
        named,
        failover_times,
        lossy,
        paused_since,
        switchover,
        last_held,
        rejoining,
        lineage,
        members,
        departed,
        members_made,
        published,
        donors,
        from_backup,
        failovers,
        rolling,
        undeleted,
        unknown,
    });
    let member = fields!(MemberRecord {
        launches,
        task,
        slot,
        given_up,
        places,
        data,
        failing,
        joined_at,
        ended_at,
        leaving,
        may_hold_more,
        revision,
        restart,
        unknown,
    });
    let task = fields!(TaskRecord {
        task_id,
        agent_id,
        host,
        port,
        launched_at,
        unknown,
    });
    let slot = fields!(Slot {
        id,
        agent_id,
        host,
        port,
        size,
        created_at,
        used,
        agent_gone,
        launch_lost_at,
        unknown,
    });
    let retained = fields!(Retained {
        format,
        record,
        orphaned,
        deleted_at,
        destroy_at,
        destroying,
        reclaimed,
        left,
        unknown,
    });
    let goal = fields!(Goal {
        backup,
        archive,
        format,
        uuid,
        epoch,
        phase,
        voters,
        terms,
        canary,
        lineage,
        user,
        addresses,
        donors,
        from_backup,
        handover,
    });
    let report = fields!(Report {
        backup,
        archive,
        format,
        uuid,
        member,
        task_id,
        server,
        data,
        process,
        promised,
        state,
        held,
        canary,
        terms,
        voters_seen,
        acknowledges,
        problem,
        trouble,
        wants_donor,
        set_aside,
        stream_port,
        lag_seconds,
        handover,
        held_back,
    });
    let data = fields!(TaskData {
        restore,
        format,
        cluster,
        uuid,
        member,
        task_id,
        port,
        memory_mib,
        zookeeper,
        zookeeper_identity,
        session_timeout_ms,
        admin_keypath,
        installer,
        timings,
        copy_rate_mib,
        copy_cost_percent,
        my_cnf,
        verify,
    });
    let framework = fields!(FrameworkRecord {
        format,
        framework_id
    });
    let leader = fields!(Leader {
        format,
        candidate,
        api,
        has_local_state,
        process
    });
    let of = |name, at, fields, rewrite| Format {
        name,
        at,
        fields,
        rewrite,
    };
    vec![
        of("record", "", record, rewrite::<ClusterRecord>),
        of("record", "/members/2", member, rewrite::<ClusterRecord>),
        of("record", "/members/2/task", task, rewrite::<ClusterRecord>),
        of("record", "/members/2/slot", slot, rewrite::<ClusterRecord>),
        of("retained", "", retained, rewrite::<Retained>),
        of("goal", "", goal, rewrite::<Goal>),
        of("report", "", report, rewrite::<Report>),
        of("task-data", "", data, rewrite::<TaskData>),
        of("framework", "", framework, rewrite::<FrameworkRecord>),
        of("leader", "", leader, rewrite::<Leader>),
        // Its fields are its own.
        of(
            "promise",
            "",
            &["format", "cluster", "epoch", "data"],
            rewrite::<Promise>,
        ),
    ]
}

/// The samples of a format, the oldest first.
fn samples(name: &str) -> Vec<(String, Value)> {
    let folder = crate::support::in_project("tests/fixtures/formats");
    let samples = (1..).map_while(|number| {
        let file = format!("{name}-{number}.json");
        let text = fs::read_to_string(folder.join(&file)).ok()?;
        Some((file, serde_json::from_str(&text).unwrap()))
    });
    samples.collect()
}

/// Whether all that `part` says is said by `whole`.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| contains(w, p))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn what_earlier_versions_stored_is_understood() {
    for format in formats() {
        let samples = samples(format.name);
        assert!(!samples.is_empty(), "there is no sample of {}", format.name);
        let newest = samples.len() - 1;
        for (number, (file, sample)) in samples.into_iter().enumerate() {
            let written = (format.rewrite)(sample.clone()).unwrap_or_else(|error| {
                panic!(
                    "{file} is what an earlier version has stored, and this version cannot read it ({error}): \
                     give what is new a default, or read the old form too"
                )
            });
            assert!(
                contains(&written, &sample),
                "{file} is what an earlier version has stored, and this version writes it without some of that: \
                 {written:#}"
            );
            if number == newest {
                assert_eq!(
                    written, sample,
                    "the format {} has changed: leave {file} as it is and add the next number with the new form",
                    format.name
                );
            }
        }
    }
}

#[test]
fn samples_have_every_field() {
    for format in formats() {
        let mut found = BTreeSet::new();
        for (_, sample) in samples(format.name) {
            if let Some(Value::Object(fields)) = sample.pointer(format.at) {
                found.extend(fields.keys().cloned());
            }
        }
        // Keys of later versions stand beside the others.
        let missing: Vec<_> = format
            .fields
            .iter()
            .filter(|field| **field != "unknown" && !found.contains(**field))
            .collect();
        assert!(
            missing.is_empty(),
            "the format {} has fields that no sample in tests/fixtures/formats has, {missing:?}: add {}-{}.json, which \
             has them, and leave the other samples as they are",
            format.name,
            format.name,
            samples(format.name).len() + 1
        );
    }
}

#[test]
fn what_a_later_version_has_stored_beside_is_kept() {
    let (file, sample) = samples("record").remove(0);
    let written = rewrite::<ClusterRecord>(sample).unwrap();
    assert_eq!(written["of_a_later_version"]["kept"], true, "{file}");
}

/// Goal: the same of what stands in the record of each member. An older scheduler that leads for a moment during an upgrade must not take
/// away what a newer one has stored there.
#[test]
fn what_a_later_version_has_stored_in_members_is_kept() {
    let places = [
        "/members/2",
        "/members/2/task",
        "/members/2/slot",
        "/members/2/leaving",
        "/departed/3",
        "/departed/3/slot",
    ];
    let mut seen = BTreeSet::new();
    for (file, sample) in samples("record") {
        for place in places {
            let mut sample = sample.clone();
            let Some(Value::Object(fields)) = sample.pointer_mut(place) else {
                continue;
            };
            fields.insert("of_a_later_version".to_owned(), Value::from(7));
            seen.insert(place);
            let written = rewrite::<ClusterRecord>(sample).unwrap();
            let kept = written.pointer(&format!("{place}/of_a_later_version"));
            assert_eq!(kept, Some(&Value::from(7)), "{file}, {place}");
        }
    }
    assert_eq!(seen.len(), places.len(), "only {seen:?} stand in samples");
}
