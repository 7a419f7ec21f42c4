//! How fast a copy goes beside the clients of its cluster. Pure.
//!
//! A copy could take all that disks, processors and the network have, and clients want the same. What a copy costs them cannot
//! be known beforehand, so it is tried: how many commits the master makes while nothing is copied, and how many while something is.
//!
//! ```text
//! Listening --(few commits: nobody to be considerate of)--> Unhindered --(more)--> Settling
//!   ^  \-----(so many in a second)--> Copying, slowly at first
//!   |                                  | again and again: slower if too many commits are missing, else faster
//! Settling <-----(after seconds)-------/
//! ```
//!
//! Commits that stand still are no reason to slow down where the copy itself may hold them up, as `mariadb-backup` does at its end with
//! the server that it copies, until it has got rid of what it holds: the sooner it has, the better.

use std::time::Duration;

/// Below so many commits per second nothing can be told from their number.
const FEW: f64 = 40.0;

/// With so many per second where nothing is held back, there may be many more when it is.
const SOME: f64 = 5.0;

/// The slowest, in bytes per second: a terabyte takes 18 hours. A copy that is much slower than its donor's redo log fills cannot be completed.
const SLOWEST: f64 = (16 << 20) as f64;

/// Where it begins if clients write, in bytes per second.
const FIRST: f64 = (32 << 20) as f64;

/// No disk is faster; in bytes per second.
const FASTEST: f64 = (16_u64 << 30) as f64;

/// What may be missing in the long run, and what makes it slower, as shares of what may be missing at the most: what comes after a copy costs
/// something as well.
const AIM: f64 = 0.5;
const TOO_MANY: f64 = 0.7;

/// How many standard deviations more must be missing: commits come by chance, so that the deviation of their number is its square root.
const CHANCE: f64 = 0.5;

/// How much faster at once.
const FASTER: f64 = 1.25;

/// How much slower at once: never less, never more.
const SLOWER: [f64; 2] = [0.3, 0.9];

/// For how long commits are counted at the most, and how many say enough.
const COUNT_FOR: Duration = Duration::from_secs(3);
const ENOUGH: f64 = 800.0;

/// How soon it is told that there are hardly any commits, and that there are few.
const TELL_HARDLY: Duration = Duration::from_millis(200);
const TELL_FEW: Duration = Duration::from_secs(1);

/// How long it goes on before it listens again, since clients may write more now, or less: the first time, when what a member does to start was
/// perhaps still felt, and from then on twice as long each time, up to the second.
const LISTEN_EVERY: [Duration; 2] = [Duration::from_millis(2_500), Duration::from_secs(12)];

/// Clients that write more than before by so many standard deviations do so indeed.
const MORE: f64 = 2.0;

/// So many commits must be missing before it is taken for a standstill, which must last so long; after so many, they go on.
const MISSING: f64 = 8.0;
const STANDSTILL: Duration = Duration::from_millis(100);

/// What is known at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The time since the copy began.
    pub after: Duration,
    /// How many transactions the master has committed.
    pub commits: u64,
    /// How many bytes have been copied.
    pub copied: u64,
}

/// How fast the copy may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it can.
    Unhindered,
    /// At so many bytes per second.
    AtMost(u64),
    /// Not now.
    Paused,
}

impl Speed {
    /// The slowest at which a copy makes progress.
    pub const SLOWEST: Self = Self::AtMost(SLOWEST as u64);
}

/// What kind of copy it is.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// How many of the commits may be missing, in percent.
    pub cost_percent: u8,
    /// How long another speed takes to be felt: in pipes, on disks, by those who copy.
    pub lag: Duration,
    /// How long commits are counted at the least.
    pub count_for: Duration,
    /// Whether it may hold up the master's commits itself.
    pub holds_up: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Tempo {
    manner: Manner,
    stage: Stage,
    /// Bytes per second; kept while it listens.
    rate: f64,
    /// The commits per second while nothing was copied.
    alone: Option<Counted>,
    /// When it has listened, and how long it goes on before it does so again.
    listened: Duration,
    listen_after: Duration,
    /// When a commit was seen last, and how many there were.
    moved: Seen,
    /// What was known when commits were found to stand still, until they go on.
    standstill: Option<Seen>,
}

/// How many commits there are per second, and of how many that is known.
#[derive(Debug, Clone, Copy)]
struct Counted {
    rate: f64,
    counted: f64,
}

impl Counted {
    fn and_later(self, now: Self) -> Self {
        if now.rate * (1.0 - MORE / now.counted.sqrt()) > self.rate {
            // Whatever else disturbed clients made them commit less than they could.
            return now;
        }
        Self {
            rate: f64::midpoint(self.rate, now.rate),
            // What was counted earlier counts half each time.
            counted: self.counted / 2.0 + now.counted,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Settling { until: Duration },
    Listening { from: Seen },
    Unhindered { from: Seen },
    Copying { from: Seen },
}

impl Tempo {
    /// For a copy that begins.
    pub fn new(manner: Manner, seen: Seen) -> Self {
        Self {
            manner,
            stage: Stage::Listening { from: seen },
            rate: FIRST,
            alone: None,
            listened: seen.after,
            listen_after: LISTEN_EVERY[0],
            moved: seen,
            standstill: None,
        }
    }

    /// The commits per second while nothing was copied, as far as they are known.
    pub fn alone(&self) -> Option<f64> {
        self.alone.map(|counted| counted.rate)
    }

    /// How fast it may go.
    pub fn speed(&self) -> Speed {
        match self.stage {
            _ if self.standstill.is_some() => Speed::Unhindered,
            Stage::Settling { .. } | Stage::Listening { .. } => Speed::Paused,
            Stage::Unhindered { .. } => Speed::Unhindered,
            Stage::Copying { .. } => Speed::AtMost(self.rate as u64),
        }
    }

    /// Takes a look into account; there should be one every twenty milliseconds or so.
    pub fn see(&mut self, seen: Seen) {
        if seen.commits != self.moved.commits {
            self.moved = seen;
        }
        self.note_standstill(seen);
        self.stage = match self.stage {
            Stage::Settling { until } if seen.after < until => self.stage,
            Stage::Settling { .. } => Stage::Listening { from: seen },
            Stage::Listening { from } => self.listen(from, seen),
            Stage::Unhindered { from } => self.look_out(from, seen),
            Stage::Copying { from } => self.copy(from, seen),
        };
    }

    fn note_standstill(&mut self, seen: Seen) {
        match self.standstill {
            Some(from) if commits_between(from, seen) >= MISSING => self.standstill = None,
            Some(_) => {}
            None => {
                let still = seen.after.saturating_sub(self.moved.after);
                let missing = self.alone().unwrap_or(0.0) * still.as_secs_f64();
                if self.manner.holds_up && still >= STANDSTILL && missing >= MISSING {
                    self.standstill = Some(seen);
                }
            }
        }
    }

    fn listen(&mut self, from: Seen, seen: Seen) -> Stage {
        let elapsed = seen.after.saturating_sub(from.after);
        let counted = commits_between(from, seen);
        let is_below = |rate: f64, by: Duration| elapsed >= by && counted < rate * by.as_secs_f64();
        let few = is_below(FEW, TELL_HARDLY) || is_below(0.75 * FEW, TELL_FEW);
        if !few && !self.is_enough(counted, elapsed) {
            return Stage::Listening { from };
        }
        self.listened = seen.after;
        let now = counted / elapsed.as_secs_f64();
        if few || now < FEW {
            return Stage::Unhindered { from: seen };
        }
        let now = Counted { rate: now, counted };
        self.alone = Some(self.alone.map_or(now, |before| before.and_later(now)));
        Stage::Copying { from: seen }
    }

    fn look_out(&mut self, from: Seen, seen: Seen) -> Stage {
        let elapsed = seen.after.saturating_sub(from.after);
        if elapsed < self.manner.count_for {
            return Stage::Unhindered { from };
        }
        let are_some = commits_between(from, seen) >= SOME * elapsed.as_secs_f64();
        if are_some && self.is_to_listen(seen) {
            self.settle(seen)
        } else {
            Stage::Unhindered { from: seen }
        }
    }

    fn copy(&mut self, from: Seen, seen: Seen) -> Stage {
        let Some(alone) = self.alone else {
            return self.settle(seen);
        };
        let elapsed = seen.after.saturating_sub(from.after);
        let expected = alone.rate * elapsed.as_secs_f64();
        if !self.is_enough(expected, elapsed) {
            return Stage::Copying { from };
        }
        let missing = 1.0 - commits_between(from, seen) / expected;
        let copied = seen.copied.saturating_sub(from.copied) as f64 / elapsed.as_secs_f64();
        let cost = f64::from(self.manner.cost_percent) / 100.0;
        let chance = (1.0 / expected + 1.0 / alone.counted).sqrt();
        if missing > TOO_MANY * cost + CHANCE * chance {
            let factor = (AIM * cost / missing).clamp(SLOWER[0], SLOWER[1]);
            self.rate = (self.rate * factor).max(SLOWEST);
        } else if missing < AIM * cost && copied > 0.8 * self.rate {
            self.rate = (self.rate * FASTER).min(FASTEST);
        }
        if self.is_to_listen(seen) {
            self.settle(seen)
        } else {
            Stage::Copying { from: seen }
        }
    }

    fn is_to_listen(&self, seen: Seen) -> bool {
        seen.after.saturating_sub(self.listened) >= self.listen_after
    }

    fn settle(&mut self, seen: Seen) -> Stage {
        self.listen_after = LISTEN_EVERY[1].min(self.listen_after * 2);
        Stage::Settling {
            until: seen.after + self.manner.lag,
        }
    }

    /// Whether commits were counted, or should have been, for long enough.
    fn is_enough(&self, commits: f64, elapsed: Duration) -> bool {
        elapsed >= self.manner.count_for && commits >= ENOUGH || elapsed >= COUNT_FOR
    }
}

fn commits_between(from: Seen, to: Seen) -> f64 {
    to.commits.saturating_sub(from.commits) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const MARIADB: Manner = Manner {
        cost_percent: 10,
        lag: Duration::from_millis(300),
        count_for: Duration::from_millis(500),
        holds_up: true,
    };

    const MYSQL: Manner = Manner {
        cost_percent: 10,
        lag: Duration::from_millis(1_500),
        count_for: Duration::from_millis(1_500),
        holds_up: false,
    };

    const STEP: Duration = Duration::from_millis(20);
    const MINUTE: Duration = Duration::from_secs(60);

    /// What the donor and the disks have to give, in bytes per second.
    const BANDWIDTH: f64 = 250e6;

    /// A cluster whose clients commit `demand` times a second, by chance, and lose `harm` of that if a copy goes as fast as it can.
    struct Cluster {
        demand: f64,
        harm: f64,
        after: Duration,
        commits: u64,
        /// How many clients would have liked to make.
        wanted: f64,
        copied: f64,
        held_up: bool,
        /// Speeds that are not felt yet.
        under_way: VecDeque<f64>,
        random: StdRng,
    }

    impl Cluster {
        fn new(manner: Manner, demand: f64, harm: f64) -> Self {
            // Somewhat sooner than it is waited for.
            let lag = manner.lag.as_millis() * 4 / 5 / STEP.as_millis();
            Self {
                demand,
                harm,
                after: Duration::ZERO,
                commits: 0,
                wanted: 0.0,
                copied: 0.0,
                held_up: false,
                under_way: (0..lag).map(|_| 0.0).collect(),
                random: StdRng::seed_from_u64(7),
            }
        }

        fn seen(&self) -> Seen {
            Seen {
                after: self.after,
                commits: self.commits,
                copied: self.copied as u64,
            }
        }

        /// So many on average, by chance.
        fn chance(&mut self, mean: f64) -> u64 {
            // A hundred chances are near enough to what comes by chance at any moment.
            let each = (mean / 100.0).min(1.0);
            (0..100).filter(|_| self.random.random_bool(each)).count() as u64
        }

        fn step(&mut self, tempo: &mut Tempo) {
            let rate = match tempo.speed() {
                Speed::Unhindered => BANDWIDTH,
                Speed::AtMost(rate) => BANDWIDTH.min(rate as f64),
                Speed::Paused => 0.0,
            };
            self.under_way.push_back(rate);
            let rate = self.under_way.pop_front().unwrap_or(rate);
            self.after += STEP;
            self.copied += rate * STEP.as_secs_f64();
            let wanted = self.demand * STEP.as_secs_f64();
            self.wanted += wanted;
            if !self.held_up {
                self.commits += self.chance(wanted * (1.0 - self.harm * rate / BANDWIDTH).max(0.0));
            }
            tempo.see(self.seen());
        }

        /// Copies for so long; says which share of the commits that clients wanted they got, and which share of the bandwidth the copy took.
        fn run(&mut self, tempo: &mut Tempo, length: Duration) -> (f64, f64) {
            let (begun, wanted) = (self.seen(), self.wanted);
            let end = self.after + length;
            while self.after < end {
                self.step(tempo);
            }
            let got = commits_between(begun, self.seen()) / (self.wanted - wanted);
            let copied = (self.copied - begun.copied as f64) / length.as_secs_f64();
            (got, copied / BANDWIDTH)
        }
    }

    /// Goal: the more a copy harms, the slower it becomes, and no slower than it must.
    #[test]
    fn clients_keep_nine_tenths_of_their_commits() {
        for manner in [MARIADB, MYSQL] {
            for demand in [100.0, 400.0, 2_000.0, 5_000.0] {
                for harm in [0.2, 0.5, 0.9] {
                    let mut cluster = Cluster::new(manner, demand, harm);
                    let mut tempo = Tempo::new(manner, cluster.seen());
                    let (share, copied) = cluster.run(&mut tempo, MINUTE * 2);
                    let case = format!("{demand} a second, {harm} lost: {share:.3} at {copied:.3}");
                    assert!(share > 0.89, "{manner:?} {case}");
                    // At least a half of what it aims at, or the slowest.
                    let least = (0.5 * 0.05 / harm).max(0.6 * SLOWEST / BANDWIDTH);
                    assert!(copied > least.min(0.06), "{manner:?} {case}");
                }
            }
        }
    }

    /// Goal: what looks like harm and is chance alone makes no copy slow.
    #[test]
    fn a_copy_that_harms_nobody_is_fast() {
        for manner in [MARIADB, MYSQL] {
            // Of few commits it is hard to say what is chance.
            for (demand, harm, least) in [
                (0.0, 0.0, 0.9),
                (5.0, 0.9, 0.9),
                (30.0, 0.0, 0.8),
                (50.0, 0.0, 0.08),
                (100.0, 0.0, 0.3),
                (1_000.0, 0.02, 0.5),
            ] {
                let mut cluster = Cluster::new(manner, demand, harm);
                let mut tempo = Tempo::new(manner, cluster.seen());
                let (_, copied) = cluster.run(&mut tempo, MINUTE * 2);
                assert!(copied > least, "{manner:?} {demand} a second: {copied:.3}");
            }
        }
        let mut idle = Cluster::new(MARIADB, 0.0, 0.0);
        let mut tempo = Tempo::new(MARIADB, idle.seen());
        idle.run(&mut tempo, TELL_HARDLY);
        assert_eq!(tempo.speed(), Speed::Unhindered, "that is soon seen");
    }

    /// Goal: clients of which nearly nothing is left are seen all the same, and a copy that harms whatever it does goes on.
    #[test]
    fn clients_that_come_later_are_seen() {
        let mut cluster = Cluster::new(MARIADB, 0.0, 0.9);
        let mut tempo = Tempo::new(MARIADB, cluster.seen());
        cluster.run(&mut tempo, LISTEN_EVERY[1]);
        cluster.demand = 100.0;
        cluster.run(&mut tempo, LISTEN_EVERY[1] * 3);
        let (share, _) = cluster.run(&mut tempo, MINUTE * 3);
        assert!(share > 0.85, "{share}");

        cluster.harm = 20.0;
        let (_, copied) = cluster.run(&mut tempo, MINUTE);
        assert!(copied > 0.8 * SLOWEST / BANDWIDTH, "{copied}");
    }

    /// Goal: clients that write less than before are not taken for harmed, nor those that write more for unharmed.
    #[test]
    fn other_clients_are_noticed() {
        let mut cluster = Cluster::new(MARIADB, 2_000.0, 0.5);
        let mut tempo = Tempo::new(MARIADB, cluster.seen());
        cluster.run(&mut tempo, MINUTE);
        let before = cluster.run(&mut tempo, MINUTE).1;
        cluster.demand = 800.0;
        cluster.run(&mut tempo, MINUTE);
        let (share, copied) = cluster.run(&mut tempo, MINUTE);
        assert!(
            share > 0.88 && copied > 0.6 * before,
            "{share} {copied} {before}"
        );
        cluster.demand = 4_000.0;
        cluster.run(&mut tempo, MINUTE);
        let (share, _) = cluster.run(&mut tempo, MINUTE);
        assert!(share > 0.88, "{share}");
        cluster.demand = 0.0;
        cluster.run(&mut tempo, LISTEN_EVERY[1] * 2);
        let (_, copied) = cluster.run(&mut tempo, MINUTE);
        assert!(copied > 0.95, "{copied}");
    }

    /// Goal: a tool that holds commits up is not held up itself, neither while it copies nor while it is paused.
    #[test]
    fn a_standstill_ends_as_soon_as_it_can() {
        let mut cluster = Cluster::new(MARIADB, 2_000.0, 0.5);
        let mut tempo = Tempo::new(MARIADB, cluster.seen());
        cluster.run(&mut tempo, MINUTE);
        for _ in 0..100 {
            cluster.run(&mut tempo, STEP * 3);
            cluster.held_up = true;
            cluster.run(&mut tempo, STANDSTILL + STEP);
            assert_eq!(tempo.speed(), Speed::Unhindered);
            cluster.held_up = false;
            cluster.run(&mut tempo, STEP);
            assert_ne!(tempo.speed(), Speed::Unhindered, "they go on");
        }
        // They cost what any missing commit costs.
        assert_eq!(tempo.rate, SLOWEST);

        let mut cluster = Cluster::new(MYSQL, 2_000.0, 0.5);
        let mut tempo = Tempo::new(MYSQL, cluster.seen());
        cluster.run(&mut tempo, MINUTE);
        cluster.held_up = true;
        cluster.run(&mut tempo, STANDSTILL * 2);
        assert_ne!(
            tempo.speed(),
            Speed::Unhindered,
            "the copy does not hold them up"
        );
    }
}
