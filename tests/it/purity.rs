//! Goal: the files that decide cannot act. Method: their text names nothing that does I/O, tells the
//! time, draws by chance or waits.

use std::{fs, path::Path};

/// Files that decide, besides all of `src/cluster`.
const PURE: &[&str] = &[
    "src/local/agent/core.rs",
    "src/local/agent/environment.rs",
    "src/local/agent/executors.rs",
    "src/local/agent/launching.rs",
    "src/local/agent/operations.rs",
    "src/local/agent/recovery.rs",
    "src/local/agent/updates.rs",
    "src/local/duration.rs",
    "src/local/master/accept.rs",
    "src/local/master/agents.rs",
    "src/local/master/checks.rs",
    "src/local/master/core.rs",
    "src/local/master/draining.rs",
    "src/local/master/events.rs",
    "src/local/master/maintenance.rs",
    "src/local/master/offers.rs",
    "src/local/master/operations.rs",
    "src/local/master/operator.rs",
    "src/local/master/registry.rs",
    "src/local/master/state.rs",
    "src/local/master/subscribe.rs",
    "src/local/master/tasks.rs",
    "src/local/master/validate.rs",
    "src/local/reservation.rs",
    "src/local/resources.rs",
    "src/backup/archive.rs",
    "src/backup/archive/plan.rs",
    "src/backup/archive/replay.rs",
    "src/backup/manifest.rs",
    "src/backup/retention.rs",
    "src/backup/verified.rs",
    "src/executor/action.rs",
    "src/executor/event.rs",
    "src/executor/lifecycle.rs",
    "src/executor/lifecycle/apply.rs",
    "src/executor/lifecycle/aside.rs",
    "src/executor/lifecycle/backup.rs",
    "src/executor/lifecycle/handover.rs",
    "src/executor/lifecycle/health.rs",
    "src/executor/lifecycle/held.rs",
    "src/executor/lifecycle/lease.rs",
    "src/executor/lifecycle/plan.rs",
    "src/executor/lifecycle/rebuild.rs",
    "src/executor/lifecycle/report.rs",
    "src/executor/tempo.rs",
    "src/scheduler/action.rs",
    "src/scheduler/agenda.rs",
    "src/scheduler/awaiting.rs",
    "src/scheduler/backups.rs",
    "src/scheduler/check.rs",
    "src/scheduler/check/drain.rs",
    "src/scheduler/check/members.rs",
    "src/scheduler/check/refuse.rs",
    "src/scheduler/check/slots.rs",
    "src/scheduler/check/undelete.rs",
    "src/scheduler/election.rs",
    "src/scheduler/event.rs",
    "src/scheduler/explain.rs",
    "src/scheduler/failover.rs",
    "src/scheduler/health.rs",
    "src/scheduler/drain.rs",
    "src/scheduler/maintenance.rs",
    "src/scheduler/members.rs",
    "src/scheduler/mesos_state.rs",
    "src/scheduler/membership.rs",
    "src/scheduler/membership/agents.rs",
    "src/scheduler/membership/telling.rs",
    "src/scheduler/observed.rs",
    "src/scheduler/orphans.rs",
    "src/scheduler/pause.rs",
    "src/scheduler/placement.rs",
    "src/scheduler/pool.rs",
    "src/scheduler/plan.rs",
    "src/scheduler/publish.rs",
    "src/scheduler/rebuild.rs",
    "src/scheduler/reconcile.rs",
    "src/scheduler/report.rs",
    "src/scheduler/requests.rs",
    "src/scheduler/restart.rs",
    "src/scheduler/retained.rs",
    "src/scheduler/retained/lingering.rs",
    "src/scheduler/retained/release.rs",
    "src/scheduler/schedule.rs",
    "src/scheduler/rolling.rs",
    "src/scheduler/rolling/wanted.rs",
    "src/scheduler/slot_report.rs",
    "src/scheduler/slots.rs",
    "src/scheduler/state.rs",
    "src/scheduler/switchover.rs",
    "src/scheduler/tasks.rs",
    "src/scheduler/undelete.rs",
    "src/scheduler/unknown.rs",
    "src/scheduler/verification.rs",
    "src/scheduler/voting.rs",
    "src/scheduler/wire.rs",
    "src/scheduler/wire/reserved.rs",
];

/// What such a file must not name, and why.
const BANNED: &[(&str, &str)] = &[
    ("tokio::", "it would wait or act"),
    ("async ", "it would wait"),
    (".await", "it would wait"),
    ("std::fs", "it would do I/O"),
    ("std::net", "it would do I/O"),
    ("std::process", "it would act"),
    ("std::env", "it would depend on its surroundings"),
    ("std::thread", "it would wait or act"),
    ("SystemTime", "time is an argument"),
    ("Instant", "time is an argument"),
    ("Timestamp::now", "time is an argument"),
    ("rand::", "chance is an argument"),
    ("new_v4", "chance is an argument"),
];

#[test]
fn files_that_decide_do_nothing_else() {
    let root = crate::support::in_project("");
    let mut files: Vec<_> = PURE.iter().map(|file| root.join(file)).collect();
    collect(&root.join("src/cluster"), &mut files);
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // What stands in tests may act.
        let decides = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in decides.lines().enumerate() {
            let code = line
                .split("//")
                .next()
                .unwrap_or_default()
                .replace(".awaited", "");
            for (word, why) in BANNED {
                if code.contains(word) {
                    found.push(format!("{}:{}: {word}: {why}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
