//! Every kind of fault, by chance, for as long as it is told, to several clusters of both flavours at once: `make soak`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::faults::Trial;
use crate::support::faults::{Fault, Outcome};

/// After so many faults everything is compared.
const COMPARED_AFTER: usize = 20;

/// One in so many faults lasts for up to [`LONG`], the others for up to [`SHORT`].
const LONG_ONE_IN: u32 = 6;

/// Longer than any timeout that tells that somebody is gone.
const LONG: Duration = Duration::from_secs(20);

/// The time in which most things are noticed, or not quite.
const SHORT: Duration = Duration::from_secs(7);

/// How long all of ZooKeeper is down in the first fault of each cluster.
const OUTAGE: Duration = Duration::from_secs(60);

/// What happened to one cluster.
struct Tally {
    acknowledged: usize,
    outcomes: BTreeMap<Fault, Vec<Outcome>>,
}

/// `MINUTES` of faults by chance to `CLUSTERS` of each flavour; `SEED` repeats their order.
#[test]
#[ignore = "as long as one likes; make soak"]
fn soak() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let minutes = number("MINUTES").unwrap_or(30);
    let clusters = number("CLUSTERS").unwrap_or(2);
    let seed = number("SEED").unwrap_or_else(rand::random);
    eprintln!("soak of {minutes} minutes, {clusters} clusters of each flavour, SEED={seed}");
    let time = Duration::from_secs(minutes * 60);
    let start = |flavour, number| {
        let random =
            StdRng::seed_from_u64(seed ^ (number << 1 | u64::from(flavour == Flavour::Mysql)));
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(soak_cluster(flavour, number, time, random))
        })
    };
    let flavours = [Flavour::Mariadb, Flavour::Mysql];
    let running = flavours.map(|flavour| {
        let trials: Vec<_> = (1..=clusters)
            .map(|number| start(flavour, number))
            .collect();
        (flavour, trials)
    });
    let mut failed = 0;
    for (flavour, trials) in running {
        let mut all = Tally {
            acknowledged: 0,
            outcomes: BTreeMap::new(),
        };
        for trial in trials {
            // One that failed has told why.
            let Ok(tally) = trial.join() else {
                failed += 1;
                continue;
            };
            all.acknowledged += tally.acknowledged;
            for (fault, outcomes) in tally.outcomes {
                all.outcomes.entry(fault).or_default().extend(outcomes);
            }
        }
        eprintln!("{}", report(flavour, &all));
    }
    assert_eq!(failed, 0, "clusters failed; the figures are of the others");
}

async fn soak_cluster(flavour: Flavour, number: u64, time: Duration, mut random: StdRng) -> Tally {
    let trial = Trial::start(flavour).await;
    let start = Instant::now();
    let mut outcomes: BTreeMap<Fault, Vec<Outcome>> = BTreeMap::new();
    let mut to_come: Vec<Fault> = Vec::new();
    let mut count = 0;
    while start.elapsed() < time {
        if to_come.is_empty() {
            to_come = Fault::ALL.to_vec();
            to_come.shuffle(&mut random);
        }
        let (fault, lasting) = match count {
            0 => (Fault::ZooKeeperDown, OUTAGE),
            _ => (to_come.pop().unwrap(), lasting(&mut random)),
        };
        count += 1;
        eprintln!(
            "{flavour} {number}, {:.0?}: fault {count}, {fault:?} for {lasting:?}",
            start.elapsed()
        );
        let outcome = trial.survive(fault, lasting).await;
        outcomes.entry(fault).or_default().push(outcome);
        if count % COMPARED_AFTER == 0 {
            trial.compare().await;
        }
    }
    let acknowledged = trial.load.count();
    trial.end().await;
    Tally {
        acknowledged,
        outcomes,
    }
}

fn lasting(random: &mut StdRng) -> Duration {
    let most = match random.random_ratio(1, LONG_ONE_IN) {
        true => LONG,
        false => SHORT,
    };
    random.random_range(Duration::from_millis(100)..most)
}

/// A table; all times in seconds.
fn report(flavour: Flavour, tally: &Tally) -> String {
    let all: Vec<Outcome> = tally.outcomes.values().flatten().copied().collect();
    let mut text = format!(
        "{flavour}: {} faults, {} writes acknowledged, 0 lost, {} failed, {} failovers\n  {:<28} {:>5} {:>7} {:>7} \
         {:>7} {:>7} {:>6} {:>9}\n",
        all.len(),
        tally.acknowledged,
        all.iter().map(|outcome| outcome.failed).sum::<usize>(),
        all.iter().map(|outcome| outcome.failovers).sum::<u64>(),
        "fault",
        "times",
        "no write",
        "worst",
        "at rest",
        "worst",
        "failed",
        "failovers",
    );
    for (fault, outcomes) in &tally.outcomes {
        let of = |pick: fn(&Outcome) -> Duration| {
            let mut times: Vec<f64> = outcomes.iter().map(|one| pick(one).as_secs_f64()).collect();
            times.sort_by(f64::total_cmp);
            (times[times.len() / 2], times[times.len() - 1])
        };
        let ((gap, longest), (recovery, slowest)) = (of(|one| one.gap), of(|one| one.recovery));
        let _ = writeln!(
            text,
            "  {:<28} {:>5} {gap:>7.2} {longest:>7.2} {recovery:>7.2} {slowest:>7.2} {:>6} {:>9}",
            format!("{fault:?}"),
            outcomes.len(),
            outcomes.iter().map(|one| one.failed).sum::<usize>(),
            outcomes.iter().map(|one| one.failovers).sum::<u64>(),
        );
    }
    text
}
