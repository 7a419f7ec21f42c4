//! Every kind of fault and of what operators ask for, by chance, for as long as it is told, to several clusters of both flavours at once: `make soak`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::faults::Trial;
use crate::support::faults::{Fault, Outcome};
use crate::support::planned::Planned;

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

/// Three members, and room for another one, so that one can be replaced.
const HOSTS: u8 = 4;

/// What happens to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Fault(Fault),
    Planned(Planned),
}

impl Happening {
    fn all() -> Vec<Self> {
        let faults = Fault::ALL.into_iter().map(Self::Fault);
        faults.chain(Planned::ALL.map(Self::Planned)).collect()
    }
}

impl std::fmt::Display for Happening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fault(fault) => write!(f, "{fault:?}"),
            Self::Planned(planned) => write!(f, "{planned:?}"),
        }
    }
}

/// What happened to the clusters of a flavour, those that failed among them up to then.
#[derive(Default)]
struct Tally {
    acknowledged: usize,
    outcomes: BTreeMap<Happening, Vec<Outcome>>,
    failed: usize,
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
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let flavours = [Flavour::Mariadb, Flavour::Mysql];
    let tallies = flavours.map(|flavour| (flavour, Mutex::new(Tally::default())));
    std::thread::scope(|scope| {
        for (flavour, tally) in &tallies {
            for number in 1..=clusters {
                let salt = number << 1 | u64::from(*flavour == Flavour::Mysql);
                let random = StdRng::seed_from_u64(seed ^ salt);
                scope.spawn(move || soak_clusters(*flavour, number, end, random, tally));
            }
        }
    });
    let mut failed = 0;
    for (flavour, tally) in tallies {
        let tally = tally.into_inner().unwrap();
        eprintln!("{}", report(flavour, &tally));
        failed += tally.failed;
    }
    assert_eq!(failed, 0, "clusters that failed; why is told above");
}

/// One cluster; after one that failed, the next one.
fn soak_clusters(
    flavour: Flavour,
    number: u64,
    end: Instant,
    mut random: StdRng,
    tally: &Mutex<Tally>,
) {
    while Instant::now() < end {
        let random = &mut random;
        let cluster = move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(soak_cluster(flavour, number, end, random, tally));
        };
        let failed = std::thread::scope(|scope| scope.spawn(cluster).join().is_err());
        tally.lock().unwrap().failed += usize::from(failed);
    }
}

async fn soak_cluster(
    flavour: Flavour,
    number: u64,
    end: Instant,
    random: &mut StdRng,
    tally: &Mutex<Tally>,
) {
    let trial = Trial::start_on(flavour, HOSTS).await;
    let start = Instant::now();
    let mut to_come: Vec<Happening> = Vec::new();
    let mut written = 0;
    for count in 1.. {
        if Instant::now() > end {
            break;
        }
        if to_come.is_empty() {
            to_come = Happening::all();
            to_come.shuffle(random);
        }
        let (happening, lasting) = match count {
            1 => (Happening::Fault(Fault::ZooKeeperDown), OUTAGE),
            _ => (to_come.pop().unwrap(), lasting(random)),
        };
        eprintln!(
            "{flavour} {number}, {:.0?}: {count}, {happening} for {lasting:?}",
            start.elapsed()
        );
        let outcome = match happening {
            Happening::Fault(fault) => trial.survive(fault, lasting).await,
            Happening::Planned(planned) => trial.go_through(planned, lasting).await,
        };
        if count % COMPARED_AFTER == 0 {
            trial.compare().await;
        }
        let mut tally = tally.lock().unwrap();
        tally.outcomes.entry(happening).or_default().push(outcome);
        tally.acknowledged += trial.load.count() - written;
        written = trial.load.count();
    }
    trial.end().await;
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
    // A cluster that has lost something has failed.
    let lost = match tally.failed {
        0 => "none lost",
        _ => "whether some were lost is told above",
    };
    let mut text = format!(
        "{flavour}: {} faults and requests, {} writes acknowledged and {lost}, {} not acknowledged; {} failovers, {} clusters \
         failed\n  {:<28} {:>5} {:>7} {:>7} {:>7} {:>7} {:>6} {:>9}\n",
        all.len(),
        tally.acknowledged,
        all.iter().map(|outcome| outcome.failed).sum::<usize>(),
        all.iter().map(|outcome| outcome.failovers).sum::<u64>(),
        tally.failed,
        "what",
        "times",
        "no write",
        "worst",
        "at rest",
        "worst",
        "failed",
        "failovers",
    );
    for (happening, outcomes) in &tally.outcomes {
        let of = |pick: fn(&Outcome) -> Duration| {
            let mut times: Vec<f64> = outcomes.iter().map(|one| pick(one).as_secs_f64()).collect();
            times.sort_by(f64::total_cmp);
            (times[times.len() / 2], times[times.len() - 1])
        };
        let ((gap, longest), (recovery, slowest)) = (of(|one| one.gap), of(|one| one.recovery));
        let _ = writeln!(
            text,
            "  {:<28} {:>5} {gap:>7.2} {longest:>7.2} {recovery:>7.2} {slowest:>7.2} {:>6} {:>9}",
            happening.to_string(),
            outcomes.len(),
            outcomes.iter().map(|one| one.failed).sum::<usize>(),
            outcomes.iter().map(|one| one.failovers).sum::<u64>(),
        );
    }
    text
}
