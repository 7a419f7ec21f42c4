//! What Cotton costs and how fast it is, beside the bare server, all in one run on one machine.
//!
//! `make bench` runs it with the release binary. Nothing here passes or fails: it prints figures, and the
//! aims beside them. What is compared is measured in the same run, so that the ratios say the same on a
//! slow machine as on a fast one.

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that cannot be made may panic"
)]
#![allow(clippy::print_stdout, reason = "the figures are the result")]

#[path = "../../tests/e2e/support/mod.rs"]
mod support;

mod backup;
mod bare;
mod bulk;
mod creation;
mod executor;
mod failover;
mod figures;
mod pipeline;
mod scaling;
mod switchover;

use std::path::Path;

use cotton::cluster::flavour::Flavour;

use figures::Figures;

fn main() {
    // Cargo passes --bench. Words after it choose what is measured, and of which flavour.
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let among = |words: &[&str], what: &str| {
        let given = |word: &str| only.iter().any(|known| known == word);
        given(what) || !words.iter().any(|word| given(word))
    };
    let words: Vec<&str> = [
        "executor",
        "creation",
        switchover::WORD,
        backup::WORD,
        scaling::WORD,
    ]
    .into_iter()
    .chain(failover::CLASSES.iter().map(|class| class.word))
    .collect();
    let wanted = |what| among(&words, what);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();

    println!("cotton executor and binary");
    let binary = Path::new(env!("CARGO_BIN_EXE_cotton"));
    let size = std::fs::metadata(binary).unwrap().len();
    figures::line(
        "binary",
        &format!("{:.1} MB", size as f64 / 1e6),
        if cfg!(debug_assertions) {
            "a debug build: no figure here means anything"
        } else {
            "stripped"
        },
    );
    if wanted("executor") {
        let starts = Figures::of(executor::STARTS, || executor::start_to_subscribe(binary));
        figures::line("start to subscribed", &starts.millis(), "aim: under 50 ms");
    }
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        if !among(&["mariadb", "mysql"], &flavour.to_string()) {
            continue;
        }
        println!("\n{flavour}");
        if wanted("creation") {
            runtime.block_on(creation::measure(flavour));
        }
        let classes = failover::CLASSES.iter();
        let classes: Vec<_> = classes.filter(|class| wanted(class.word)).collect();
        if !classes.is_empty() {
            println!("  no write by a client that follows discovery: p50 / p99 / worst");
            runtime.block_on(failover::measure(flavour, &classes));
        }
        if wanted(switchover::WORD) {
            println!(
                "  no write by any of twenty clients that follow discovery: p50 / p99 / worst"
            );
            runtime.block_on(switchover::measure(flavour));
        }
        if wanted(scaling::WORD) {
            println!("  a cluster with {} MB grows", bulk::megabytes());
            runtime.block_on(scaling::measure(flavour));
        }
        if wanted(backup::WORD) {
            println!("  {} MB in a file store", bulk::megabytes());
            runtime.block_on(backup::measure(flavour));
        }
    }
    println!("\n{PUBLISHED}");
}

/// What others say of themselves, to be read beside it; docs/measurements.md names the sources.
const PUBLISHED: &str = "Published by others, not measured here: orchestrator at GitHub, 10 to 13 s in most cases; \
                         MySQL Group Replication, 10 s until a silent member is expelled, by default.";
