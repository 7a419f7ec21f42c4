//! Keeping to a rate: to that of the operator, and to what the clients of a master bear ([`Tempo`]).
//!
//! The member that copies asks the master how much it commits, and takes what its donor sends no faster than that allows. Whoever
//! sends more than is taken waits: the connection is full.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info};

use super::{
    chain,
    tempo::{Manner, Seen, Speed, Tempo},
};
use crate::mysql::{self, Commits, Source};

/// How often the master is asked; and as long as hardly anybody writes.
const ASK_EVERY: Duration = Duration::from_millis(20);
const ASK_IDLE_EVERY: Duration = Duration::from_millis(100);

/// When a master that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// When the next piece may go. A piece at the lowest rate, 1 MiB per second, takes a quarter of a second, so that a receiver never waits
/// long for the next one. Time in which nothing is brought is not made up for.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes per second; 0 for no limit.
    rate: u64,
    next: Option<Instant>,
}

impl Pace {
    /// At so many MiB per second; 0 for no limit.
    pub fn of_mib(rate: u32) -> Self {
        Self {
            rate: u64::from(rate) << 20,
            next: None,
        }
    }

    /// Waits after a piece of this length until the next one may go.
    pub async fn keep(&mut self, length: usize) {
        if let Some(next) = self.after(length, Instant::now()) {
            sleep_until(next).await;
        }
    }

    /// When the next piece may go after one of this length, which went at `now`; at once, if nothing is returned. A timer
    /// that has run out already takes a millisecond all the same, in which a disk brings many pieces.
    fn after(&mut self, length: usize, now: Instant) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let takes = Duration::from_secs_f64(length as f64 / self.rate as f64);
        let next = self.next.map_or(now, |next| next.max(now)) + takes;
        self.next = Some(next);
        Some(next)
    }
}

/// Whom a copy gives way to.
pub struct Clients<'a> {
    /// The master that they write to.
    pub master: &'a Source,
    /// What kind of copy it is.
    pub manner: Manner,
}

/// What holds a copy up while the master's clients need what it would take.
pub struct Gate {
    speed: watch::Sender<Speed>,
    copied: AtomicU64,
    complete: Notify,
}

/// The side of a gate on which pieces come.
pub struct Entrance<'a> {
    gate: &'a Gate,
    pace: Pace,
}

impl Gate {
    /// One that is as it says.
    pub fn new(speed: Speed) -> Self {
        Self {
            speed: watch::Sender::new(speed),
            copied: AtomicU64::new(0),
            complete: Notify::new(),
        }
    }

    /// From now on it lets through so much.
    pub fn set(&self, speed: Speed) {
        self.speed.send_replace(speed);
    }

    /// Waits until something may pass.
    pub async fn opens(&self) {
        // The sender is this one's, so it is there.
        let mut speed = self.speed.subscribe();
        let _ = speed.wait_for(|speed| *speed != Speed::Paused).await;
    }

    /// For whoever has the pieces.
    pub fn entrance(&self) -> Entrance<'_> {
        Entrance {
            gate: self,
            pace: Pace::default(),
        }
    }

    /// The speed, and when it changes.
    pub fn speeds(&self) -> watch::Receiver<Speed> {
        self.speed.subscribe()
    }

    /// So many bytes have come in all, of what does not come through the gate piece by piece.
    pub fn has_copied(&self, bytes: u64) {
        self.copied.store(bytes, Ordering::Relaxed);
    }

    /// All has come; how much the master commits does not matter any more.
    pub fn is_complete(&self) {
        self.complete.notify_one();
    }

    /// Lets through what a copy brings, as fast as these clients bear, until all has come; never ends by itself.
    pub async fn mind(&self, clients: &Clients<'_>) -> Infallible {
        tokio::select! {
            never = self.mind_on(clients) => never,
            () = self.complete.notified() => std::future::pending().await,
        }
    }

    /// A master that takes too long has more to do than it can. Of one that cannot be reached nothing is known, and nobody is likely to write to it.
    async fn mind_on(&self, clients: &Clients<'_>) -> Infallible {
        loop {
            let Err(error) = self.keep_minding(clients).await;
            debug!(error = %chain(&error), "how much the master commits is not known; the copy goes on");
            self.set(match error {
                mysql::Error::TimedOut { .. } => Speed::SLOWEST,
                _ => Speed::Unhindered,
            });
            sleep(ASK_AGAIN).await;
        }
    }

    async fn keep_minding(&self, clients: &Clients<'_>) -> Result<Infallible, mysql::Error> {
        let begun = Instant::now();
        let mut commits = Commits::of(clients.master).await?;
        let seen = self.look(&mut commits, begun).await?;
        let mut tempo = Tempo::new(clients.manner, seen);
        let mut looks = interval(ASK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            let (speed, alone) = (tempo.speed(), tempo.alone().unwrap_or_default() as u64);
            if self
                .speed
                .send_if_modified(|now| std::mem::replace(now, speed) != speed)
            {
                debug!(
                    ?speed,
                    commits_per_second = alone,
                    "the copy has another speed"
                );
            }
            if !told && alone > 0 {
                told = true;
                info!(
                    commits_per_second = alone,
                    "clients write; the copy leaves them most of what they need"
                );
            }
            if tempo.alone().is_some() {
                looks.tick().await;
            } else {
                sleep(ASK_IDLE_EVERY).await;
            }
            tempo.see(self.look(&mut commits, begun).await?);
        }
    }

    async fn look(&self, commits: &mut Commits, begun: Instant) -> Result<Seen, mysql::Error> {
        Ok(Seen {
            commits: commits.count().await?,
            after: begun.elapsed(),
            copied: self.copied.load(Ordering::Relaxed),
        })
    }
}

impl Entrance<'_> {
    /// Waits until more may come after a piece of this length.
    pub async fn pass(&mut self, length: usize) {
        self.gate.copied.fetch_add(length as u64, Ordering::Relaxed);
        self.gate.opens().await;
        self.pace.rate = match *self.gate.speed.borrow() {
            Speed::AtMost(rate) => rate,
            Speed::Unhindered | Speed::Paused => 0,
        };
        self.pace.keep(length).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 256 << 10;

    /// Goal: the rate is kept over many pieces, and no time is made up for.
    #[test]
    fn pieces_go_at_the_rate_that_is_asked_for() {
        let begun = Instant::now();
        let mut pace = Pace::of_mib(2);
        let mut now = begun;
        for _ in 0..16 {
            now = pace.after(PIECE, now).expect("there is a rate");
        }
        // 4 MiB at 2 MiB per second.
        let took = now - begun;
        assert!((took.as_secs_f64() - 2.0).abs() < 0.01, "{took:?}");
        let later = now + Duration::from_secs(100);
        assert!(pace.after(PIECE, later) > Some(later));
        assert_eq!(Pace::default().after(PIECE, later), None);
    }

    /// Goal: a gate holds pieces up while it is closed, and lets them go on as soon as it opens, at the speed that it has then.
    #[tokio::test]
    async fn a_gate_opens_and_closes() {
        const CLOSED: Duration = Duration::from_millis(50);
        let gate = Gate::new(Speed::Paused);
        let begun = Instant::now();
        let mut entrance = gate.entrance();
        let opens = async {
            sleep(CLOSED).await;
            gate.set(Speed::AtMost(10 * PIECE as u64));
        };
        tokio::join!(entrance.pass(PIECE), opens);
        assert!(begun.elapsed() >= CLOSED + Duration::from_millis(100));

        gate.set(Speed::Unhindered);
        let begun = Instant::now();
        for _ in 0..100 {
            entrance.pass(PIECE).await;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "ten seconds at the former speed"
        );
        assert_eq!(gate.copied.load(Ordering::Relaxed), 101 * PIECE as u64);
    }
}
