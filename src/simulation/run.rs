//! Playing histories: one, many on all cores, and the tests.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use super::{
    Bend,
    scenes::Family,
    scheduler::REPLACE_AFTER,
    setup::Setup,
    world::{SECOND, World},
};

/// How long after the last fault everything must be well again. Mesos takes 60 s to be sure of a lost launch, and
/// members that failed wait for as long before they are launched again.
const RECOVERY: u64 = 240 * SECOND;

/// The same for what a deleted cluster has left on slots: it is looked for every ten minutes, and what was never heard of for
/// a quarter of an hour.
const DESTRUCTION: u64 = 2400 * SECOND;

/// The same for the end of a cluster: a task whose agent does not come back is waited for that long.
const DELETION: u64 = RECOVERY + REPLACE_AFTER;

/// How a history ended.
#[derive(Debug)]
pub struct Ending {
    pub violation: Option<String>,
    pub trace: Vec<String>,
    pub events: u64,
    pub faults: u32,
    pub acknowledged: usize,
    pub epochs: usize,
    /// Why progress could not be demanded.
    pub hopeless: Option<&'static str>,
    pub lasted: u64,
}

/// Plays the history of a seed.
pub fn play(seed: u64, bend: Bend, traced: bool) -> Ending {
    play_in(seed, Setup::draw(seed), bend, traced)
}

/// Plays the history of a seed in a setup of its own.
pub fn play_in(seed: u64, setup: Setup, bend: Bend, traced: bool) -> Ending {
    let mut world = World::new(seed, setup, bend);
    if traced {
        world.trace = Some(vec![format!("seed {seed}: {:?}", world.setup)]);
    }
    world.scheduler_starts();
    world.clients_begin();
    world.faults_begin();
    world.switchovers_begin();
    world.membership_changes_begin();
    world.maintenance_begins();
    world.changes_begin();
    world.durability_changes_begin();
    world.look_at_discovery();
    if let Some(at) = world.setup.deleted_at {
        world.after(at, World::deletion_is_asked_for);
        if let Some(later) = world.setup.undeleted_after {
            world.after(at + later, World::undeletion_is_asked_for);
        }
    }
    world.run_until(world.setup.faults_for);
    let calm_since = world.now;
    let mut hopeless = None;
    if world.violation.is_none() {
        world.faults_end();
        hopeless = recover(&mut world, calm_since);
    }
    Ending {
        events: world.events,
        faults: world.faults,
        acknowledged: world.history.acknowledged.len(),
        epochs: world.history.opened.len(),
        hopeless,
        lasted: world.now,
        trace: world.trace.unwrap_or_default(),
        violation: world.violation,
    }
}

/// Waits until everything is well. Returns why that could not be demanded, if so.
fn recover(world: &mut World, calm_since: u64) -> Option<&'static str> {
    loop {
        world.run_until(world.now + SECOND);
        if world.violation.is_some() {
            return None;
        }
        let calm_since = calm_since.max(world.history.back_since.unwrap_or_default());
        let Some(unfinished) = world.unfinished(calm_since) else {
            break;
        };
        let within = match world.is_kept() {
            true => DESTRUCTION,
            false if world.history.deleted => DELETION,
            false => RECOVERY,
        };
        if world.now > calm_since + within
            || !world.can_recover() && world.now > calm_since + 30 * SECOND
        {
            if world.can_recover() {
                world.wrong(|| format!("no progress: {unfinished}"));
            }
            return world.hopeless();
        }
    }
    world.run_until(world.now + 2 * SECOND);
    if world.violation.is_none() {
        world.check_the_end();
    }
    None
}

fn fails(seed: u64, setup: Setup, ending: &Ending) -> String {
    let traced = play_in(seed, setup, Bend::Nothing, true);
    let tail = traced.trace.len().saturating_sub(400);
    format!(
        "seed {seed}: {}\n{}\nseed {seed}: {}",
        traced.trace.first().map_or("", String::as_str),
        traced.trace[tail..].join("\n"),
        ending.violation.as_deref().unwrap_or("it did not fail"),
    )
}

/// A few histories, each time the tests run.
#[test]
fn histories_keep_every_promise() {
    for seed in 0..60 {
        let ending = play(seed, Bend::Nothing, false);
        if ending.violation.is_some() {
            panic!("{}", fails(seed, Setup::draw(seed), &ending));
        }
    }
}

/// A few narrow histories of every family, each time the tests run: chance alone would leave some of them out.
#[test]
fn every_family_keeps_every_promise() {
    for family in Family::ALL {
        for seed in 0..4 {
            let setup = || family.narrow(Setup::draw_ordinary(seed));
            let ending = play_in(seed, setup(), Bend::Nothing, false);
            if ending.violation.is_some() {
                panic!("{family:?}, {}", fails(seed, setup(), &ending));
            }
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 2, 3] {
        let (a, b) = (
            play(seed, Bend::Nothing, true),
            play(seed, Bend::Nothing, true),
        );
        assert_eq!(a.trace, b.trace);
    }
}

/// The setup of a seed; with `FAMILY=name` one of that family, whatever the seed would have drawn.
fn setup_asked_for(seed: u64) -> Setup {
    let Ok(name) = std::env::var("FAMILY") else {
        return Setup::draw(seed);
    };
    let mut families = Family::ALL.iter();
    let family = families.find(|family| format!("{family:?}") == name);
    let family = family.unwrap_or_else(|| panic!("there is no family {name}"));
    family.narrow(Setup::draw_ordinary(seed))
}

/// `make sim SEEDS=from..to`, and `FAMILY=name` if need be: all of them on all cores, with a summary.
#[test]
#[ignore = "run by make sim, with seeds"]
fn many_seeds() {
    let text = std::env::var("SEEDS").unwrap_or_else(|_| "0..1000".to_owned());
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
        None => (text.parse().unwrap(), text.parse::<u64>().unwrap() + 1),
    };
    if to == from + 1 {
        let ending = play_in(from, setup_asked_for(from), Bend::Nothing, true);
        println!("{}\n{:?}", ending.trace.join("\n"), ending.violation);
        return;
    }
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let endings: Vec<(u64, Ending)> = std::thread::scope(|scope| {
        let worker = || {
            let mut endings = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= to {
                    return endings;
                }
                let ending = play_in(seed, setup_asked_for(seed), Bend::Nothing, false);
                if let Some(violation) = &ending.violation {
                    println!("seed {seed}: {violation}");
                }
                endings.push((seed, ending));
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap())
            .collect()
    });
    let sum = |of: fn(&Ending) -> u64| endings.iter().map(|(_, ending)| of(ending)).sum::<u64>();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} histories in {seconds:.1} s ({:.1} per second on {workers} cores), {:.0} simulated hours: {} faults, {} acknowledged writes, {} masters opened, {} events; {} could not recover",
        endings.len(),
        endings.len() as f64 / seconds,
        sum(|e| e.lasted) as f64 / SECOND as f64 / 3600.0,
        sum(|e| u64::from(e.faults)),
        sum(|e| e.acknowledged as u64),
        sum(|e| e.epochs as u64),
        sum(|e| e.events),
        sum(|e| u64::from(e.hopeless.is_some())),
    );
    let mut causes: BTreeMap<&str, u32> = BTreeMap::new();
    for cause in endings.iter().filter_map(|(_, ending)| ending.hopeless) {
        *causes.entry(cause).or_default() += 1;
    }
    for (cause, times) in causes {
        println!("could not recover {times} times: {cause}");
    }
    let failed = endings.iter().filter(|(_, e)| e.violation.is_some());
    let failed = failed.count();
    assert!(
        failed == 0,
        "{failed} of {} histories break a promise",
        endings.len()
    );
}
