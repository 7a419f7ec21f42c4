//! Elections and lineages, compared with a model that keeps every server's log as a list.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

const CLUSTER: Uuid = Uuid::from_u128(0xc0_77_0e);

fn mysql(text: &str) -> Position {
    Position::parse(Flavour::Mysql, text).unwrap()
}

fn mariadb(text: &str) -> Position {
    Position::parse(Flavour::Mariadb, text).unwrap()
}

#[test]
fn positions_are_readable_in_json() {
    let position = mariadb("1-1-3,0-1-100");
    let text = serde_json::to_string(&position).unwrap();
    assert_eq!(text, r#"{"mariadb":"0-1-100,1-1-3"}"#);
    assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);

    let position = mysql("3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5");
    let text = serde_json::to_string(&position).unwrap();
    assert_eq!(
        text,
        r#"{"mysql":"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"}"#
    );
    assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);

    for wrong in [
        r#"{"mysql":"0-1-100"}"#,
        r#"{"mariadb":"x"}"#,
        r#"{"oracle":""}"#,
        r#""0-1-100""#,
    ] {
        assert!(serde_json::from_str::<Position>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn flavours_do_not_mix() {
    let (a, b) = (mysql(""), mariadb("0-1-1"));
    assert!(!a.contains(&b) && !b.contains(&a));
    assert_eq!(a.union(&b), Err(FlavoursDiffer));
    assert_eq!(b.minus(&a), b);
    assert_eq!(a.more_complete(&b, CLUSTER), None);
}

#[test]
fn the_higher_marker_wins_over_the_longer_history() {
    let old = mysql(&format!(
        "{CLUSTER}:1,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-500"
    ));
    let new = mysql(&format!(
        "{CLUSTER}:1-2,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3"
    ));
    assert_eq!(old.more_complete(&new, CLUSTER), Some(Ordering::Less));

    let old = mariadb(&format!("0-1-999,{MARKER_DOMAIN}-1-1"));
    let new = mariadb(&format!("0-1-1000,{MARKER_DOMAIN}-2-1"));
    assert_eq!(old.more_complete(&new, CLUSTER), Some(Ordering::Less));
    let newer = mariadb(&format!("0-1-4,{MARKER_DOMAIN}-2-2"));
    assert_eq!(newer.more_complete(&new, CLUSTER), Some(Ordering::Greater));
}

#[test]
fn the_newest_number_does_not_hide_a_transaction_that_was_lost() {
    let lineage = [
        (Epoch(1), mariadb("")),
        (Epoch(2), mariadb(&format!("0-1-90,{MARKER_DOMAIN}-1-1"))),
        (Epoch(3), mariadb(&format!("0-2-150,{MARKER_DOMAIN}-2-2"))),
    ];
    let deposed = mariadb(&format!("0-1-100,{MARKER_DOMAIN}-1-1"));
    assert!(
        lineage[2].1.contains(&deposed),
        "by numbers alone nothing is wrong"
    );
    assert_eq!(
        extras(&deposed, &lineage, CLUSTER),
        Some(mariadb("0-1-100"))
    );
    let behind = mariadb(&format!("0-1-80,{MARKER_DOMAIN}-1-1"));
    assert_eq!(extras(&behind, &lineage, CLUSTER), None);
}

/// Goal: a marker that was never acknowledged is no extra; what its master wrote besides is, also where numbers of
/// others are higher.
#[test]
fn stray_markers_are_no_extras_and_hide_none() {
    let stray = mysql(&format!(
        "{CLUSTER}:1-2,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"
    ));
    let history = mysql(&format!(
        "{CLUSTER}:1,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"
    ));
    let shorter = mysql(&format!(
        "{CLUSTER}:1,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-4"
    ));
    let elected = |first: &Position, second: &Position| {
        [
            (Epoch(1), Position::empty(first.flavour())),
            (Epoch(2), first.clone()),
            (Epoch(3), second.clone()),
        ]
    };
    assert_eq!(extras(&stray, &elected(&history, &history), CLUSTER), None);
    assert_eq!(
        extras(&stray, &elected(&history, &shorter), CLUSTER),
        Some(mysql("3e11fa47-71ca-11e1-9e33-c80aa9429562:5"))
    );
    // With the same highest marker a stray one below it decides nothing.
    let follows = mysql(&format!(
        "{CLUSTER}:1-3,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-4"
    ));
    let further = mysql(&format!(
        "{CLUSTER}:1:3,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"
    ));
    assert_eq!(
        follows.more_complete(&further, CLUSTER),
        Some(Ordering::Less)
    );

    let marker = |epoch: u64, server: u32| format!("{MARKER_DOMAIN}-{server}-{epoch}");
    let first = mariadb(&format!("0-1-90,{}", marker(1, 1)));
    let longer = mariadb(&format!("0-1-95,{}", marker(1, 1)));
    let stray = mariadb(&format!("0-1-90,{}", marker(2, 2)));
    assert_eq!(extras(&stray, &elected(&first, &longer), CLUSTER), None);
    let wrote = mariadb(&format!("0-2-91,{}", marker(2, 2)));
    assert!(
        longer.contains(&mariadb("0-2-91")),
        "by numbers alone nothing is wrong"
    );
    assert_eq!(
        extras(&wrote, &elected(&first, &longer), CLUSTER),
        Some(mariadb("0-2-91"))
    );
    let short = mariadb(&format!("0-1-80,{}", marker(1, 1)));
    assert_eq!(
        extras(&stray, &elected(&first, &short), CLUSTER),
        Some(mariadb("0-1-90"))
    );
}

/// Goal: what cannot be compared is not called contained. Method: the history of the test before, without its oldest entries.
#[test]
fn what_is_older_than_the_lineage_counts_as_extra_as_a_whole() {
    let whole = [
        (Epoch(1), mariadb("")),
        (Epoch(2), mariadb(&format!("0-1-90,{MARKER_DOMAIN}-1-1"))),
        (Epoch(3), mariadb(&format!("0-2-150,{MARKER_DOMAIN}-2-2"))),
        (Epoch(4), mariadb(&format!("0-3-160,{MARKER_DOMAIN}-3-3"))),
    ];
    let deposed = mariadb(&format!("0-1-100,{MARKER_DOMAIN}-1-1"));
    let behind = mariadb(&format!("0-1-80,{MARKER_DOMAIN}-1-1"));
    let young = mariadb(&format!("0-2-140,{MARKER_DOMAIN}-2-2"));
    let nothing = mariadb("");
    for forgotten in 0..4 {
        let lineage = &whole[forgotten..];
        let known = |held: &Position, needed: usize, extra: Option<&str>| {
            let found = extras(held, lineage, CLUSTER);
            match forgotten > needed {
                true => assert_eq!(found.as_ref(), Some(held), "{forgotten} {held}"),
                false => assert_eq!(found, extra.map(mariadb), "{forgotten} {held}"),
            }
        };
        // The history of epoch 2 says how much of epoch 1 there is.
        known(&deposed, 1, Some("0-1-100"));
        known(&behind, 1, None);
        known(&young, 2, None);
        assert_eq!(extras(&nothing, lineage, CLUSTER), None);
    }
    let old = mysql(&format!("{CLUSTER}:1"));
    let newest = [(Epoch(4), mysql(&format!("{CLUSTER}:1-3")))];
    assert_eq!(
        extras(&old, &newest, CLUSTER),
        None,
        "MySQL needs the newest alone"
    );
}

/// One transaction in the model: what it is, and who wrote it. No two are equal.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    epoch: u64,
    server: usize,
    /// 0 is the epoch's marker.
    number: u64,
}

/// What happens to the model's cluster next.
#[derive(Debug, Clone)]
enum Step {
    /// The master writes.
    Write,
    /// A follower receives so many of the transactions that it lacks.
    Receive { member: usize, entries: usize },
    /// The voters other than one elect; the winner writes its marker.
    Elect { without: usize },
}

const MEMBERS: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Write),
        3 => (0..MEMBERS, 1..4usize).prop_map(|(member, entries)| Step::Receive { member, entries }),
        2 => (0..MEMBERS).prop_map(|without| Step::Elect { without }),
    ];
    proptest::collection::vec(step, 0..60)
}

#[derive(Default)]
struct World {
    logs: [Vec<Entry>; MEMBERS],
    /// Whether a member was found to be in the newest history, and so may receive.
    follows: [bool; MEMBERS],
    master: usize,
    epoch: u64,
    lineage: Vec<(Epoch, Position)>,
    /// Whether any member's past was ever mixed.
    mixed: bool,
    /// What clients were told is written.
    acknowledged: Vec<Entry>,
}

impl Entry {
    fn is_marker(&self) -> bool {
        self.number == 0
    }
}

/// Whether a MariaDB master sends nothing to a member: its last transaction of the data is not in the master's binlog.
fn refuses(master: &[Entry], member: &[Entry]) -> bool {
    let last = member.iter().rev().find(|entry| !entry.is_marker());
    last.is_some_and(|last| !master.contains(last))
}

/// Whether something of an earlier epoch comes after a marker: a member has followed another master since it got the marker
/// of one that never opened.
fn is_mixed(log: &[Entry]) -> bool {
    let mut marker = 0;
    log.iter().any(|entry| {
        marker = marker.max(if entry.is_marker() { entry.epoch } else { 0 });
        entry.epoch < marker
    })
}

impl World {
    fn position(&self, flavour: Flavour, log: &[Entry]) -> Position {
        let start = Position::empty(flavour);
        let mut data = 0;
        log.iter().fold(start, |position, entry| {
            let server = entry.server as u32 + 1;
            let one = match (flavour, entry.number) {
                (_, 0) => Position::marker(flavour, CLUSTER, Epoch(entry.epoch), server),
                // A server's own counter never goes back, also when its log was cut.
                (Flavour::Mysql, number) => Position::Mysql(GtidSet::one(
                    Uuid::from_u128(server.into()),
                    entry.epoch * 1000 + number,
                )),
                (Flavour::Mariadb, _) => {
                    data += 1;
                    Position::Mariadb(GtidList::one(DATA_DOMAIN, server, data))
                }
            };
            position.union(&one).unwrap()
        })
    }

    fn write(&mut self, number: u64) {
        let entry = Entry {
            epoch: self.epoch,
            server: self.master,
            number,
        };
        self.logs[self.master].push(entry);
    }

    fn elect(&mut self, flavour: Flavour, without: usize) -> Result<(), TestCaseError> {
        let held = |world: &Self, member: usize| world.position(flavour, &world.logs[member]);
        let mut voters = (0..MEMBERS).filter(|member| *member != without);
        let mut winner = voters.next().unwrap();
        for voter in voters {
            let order = held(self, voter).more_complete(&held(self, winner), CLUSTER);
            // Only a master that never opened may have written what makes two voters incomparable.
            winner = if order == Some(Ordering::Greater) {
                voter
            } else {
                winner
            };
        }
        self.epoch += 1;
        self.master = winner;
        self.lineage.push((Epoch(self.epoch), held(self, winner)));
        let history = self.logs[winner].clone();
        for entry in &self.acknowledged {
            prop_assert!(
                history.contains(entry),
                "{entry:?} is lost: {:?}",
                self.logs
            );
        }
        self.write(0);
        self.follows[winner] = true;
        for member in (0..MEMBERS).filter(|member| *member != winner) {
            let log = &self.logs[member];
            let mut written = log.iter().filter(|entry| !entry.is_marker());
            let really_has_more = !written.all(|entry| history.contains(entry));
            let found = extras(&self.position(flavour, log), &self.lineage, CLUSTER);
            // By numbers alone some may be taken for what they are not, and one is missed if a master that never opened
            // has written something; that one the master refuses.
            let by_numbers = flavour == Flavour::Mariadb && self.mixed;
            let refused = flavour == Flavour::Mariadb && refuses(&history, log);
            let told = match found {
                Some(_) => really_has_more || by_numbers,
                None => !really_has_more || by_numbers && refused,
            };
            prop_assert!(told, "member {member} of {:?} has {found:?}", self.logs);
            self.follows[member] = found.is_none();
        }
        Ok(())
    }

    fn receive(&mut self, flavour: Flavour, member: usize, entries: usize) {
        if !self.follows[member] {
            // Made anew, as soon as the marker of the epoch was received elsewhere: see the amnesia rule.
            let epoch = self.epoch;
            let received = |log: &Vec<Entry>| log.iter().any(|entry| entry.epoch == epoch);
            if self.logs.iter().filter(|log| received(log)).count() >= 2 {
                self.logs[member].clear();
                self.follows[member] = true;
            }
        }
        if !self.follows[member] || member == self.master {
            return;
        }
        let log = &self.logs[member];
        if flavour == Flavour::Mariadb && refuses(&self.logs[self.master], log) {
            return;
        }
        let marker = log.iter().filter(|entry| entry.is_marker());
        let marker = marker.map(|entry| entry.epoch).max().unwrap_or(0);
        let lacks = |entry: &&Entry| {
            // On MariaDB it begins to receive behind the last marker up to its own.
            let passed = flavour == Flavour::Mariadb && entry.is_marker() && entry.epoch <= marker;
            !log.contains(entry) && !passed
        };
        let sent = self.logs[self.master].iter().filter(lacks);
        let sent: Vec<Entry> = sent.take(entries).copied().collect();
        self.logs[member].extend(sent);
        self.mixed |= is_mixed(&self.logs[member]);
        let written = |entry: &&Entry| entry.epoch == self.epoch && !entry.is_marker();
        let acknowledged = self.logs[member].iter().filter(written);
        self.acknowledged.extend(acknowledged);
    }
}

fn run(flavour: Flavour, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::default();
    world.elect(flavour, 2)?;
    for (number, step) in (1..).zip(steps) {
        match *step {
            Step::Write => world.write(number),
            Step::Receive { member, entries } => world.receive(flavour, member, entries),
            Step::Elect { without } => world.elect(flavour, without)?,
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn extras_are_found_exactly_on_mysql(steps in steps()) {
        run(Flavour::Mysql, &steps)?;
    }

    #[test]
    fn extras_are_found_exactly_on_mariadb(steps in steps()) {
        run(Flavour::Mariadb, &steps)?;
    }
}
