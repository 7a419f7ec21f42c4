//! `cotton admin explain`: why, for a person.

use clap::Args;

use super::Context;
use crate::{
    cli::{Exit, output},
    cluster::{
        data_loss::{LossyFailover, Offer},
        explanation::{FailoverView, Waiting},
        failover_record::{Master, Quorum, VoterAccount},
        switchover::Switchover,
        verification::VerificationView,
        voters::Durability,
    },
    http::explain::ExplainAnswer,
    time::Timestamp,
};

/// Explain what a cluster waits for and how its last failovers came about.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// The cluster's name.
    cluster: String,
}

const EXAMPLES: &str = "\
Examples:
  cotton admin explain orders
  cotton admin explain orders --json | jq '.failovers[0].phases'

Each failover is told with the evidence that ended the term of the master before, how many voters had to report
and which of them did, what each of them held, by which rule the winner won, and how long each phase took. The
scheduler remembers the last sixteen. In JSON all times are milliseconds since 1970, by the scheduler's clock.";

pub(super) async fn run(context: &Context, arguments: ExplainArgs) -> anyhow::Result<Exit> {
    let path = format!("{}/explain", super::api::path_of(&arguments.cluster));
    let answer: ExplainAnswer = context.api.get(&path).await?;
    if context.json {
        output::answer(serde_json::to_string_pretty(&answer)?)?;
    } else {
        output::answer(text(&answer))?;
    }
    Ok(Exit::Ok)
}

fn text(answer: &ExplainAnswer) -> String {
    let explained = &answer.explanation;
    let mut parts = vec![format!(
        "{} is {}: {}\n{}",
        explained.name,
        explained.state.as_str(),
        explained.reason,
        promise(&explained.quorum)
    )];
    let standing = &explained.standing;
    parts.extend(
        standing
            .changing
            .clone()
            .map(|changing| format!("It is {changing}.")),
    );
    match &explained.waiting {
        Some(waiting) => parts.push(waits(waiting, answer.now)),
        None => parts.push("It waits for nothing.".to_owned()),
    }
    if !explained.voters.is_empty() {
        parts.push(explained.voters.join("\n"));
    }
    if !explained.set_aside.is_empty() {
        parts.push(explained.set_aside.join("\n"));
    }
    let backups = standing.backups.as_ref();
    let verification = backups.and_then(|backups| backups.verification.as_ref());
    let told = verification.filter(|it| it.is_to_be_told());
    let told = told.and_then(VerificationView::sentence);
    parts.extend(told.map(|sentence| format!("Backups: {sentence}.")));
    if !standing.maintenance.is_empty() {
        parts.push(standing.maintenance.join("\n"));
    }
    if !standing.membership.is_empty() {
        let told = standing.membership.join("\n");
        parts.push(format!("Members that come and go:\n{}", indented(&told)));
    }
    parts.extend(standing.failover_offer.as_ref().map(offered));
    parts.extend(
        standing
            .lossy_failover
            .as_ref()
            .map(|lossy| given_up(lossy, answer.now)),
    );
    parts.extend(
        standing
            .switchover
            .as_ref()
            .map(|switchover| switched(switchover, answer.now)),
    );
    if explained.failovers.is_empty() {
        parts.push("It has had no failover.".to_owned());
    }
    let failovers = explained.failovers.iter();
    parts.extend(failovers.map(|one| failover(one, answer.now)));
    parts.join("\n\n")
}

/// The way out that an operator has.
fn offered(offer: &Offer) -> String {
    let mut lines = vec![
        "If those missing never come back, they can be given up, and what only they hold:"
            .to_owned(),
        format!("  {}", offer.command),
    ];
    let told = offer.prospect.sentences().into_iter();
    lines.extend(told.map(|told| format!("  {told}")));
    lines.join("\n")
}

/// The last failover with the loss of data.
fn given_up(lossy: &LossyFailover, now: Timestamp) -> String {
    let when = moment(lossy.asked_at, now);
    match &lossy.outcome {
        None => format!(
            "A failover with the loss of data was asked for {when}: members that are given up are being killed, then the best of those in sight becomes master."
        ),
        Some(outcome) => {
            let told = outcome.sentences().join("\n");
            format!(
                "Data was given up at an operator's word, {when}:\n{}",
                indented(&told)
            )
        }
    }
}

/// The last switchover.
fn switched(switchover: &Switchover, now: Timestamp) -> String {
    let (from, to) = (switchover.from, switchover.to);
    let when = moment(switchover.asked_at, now);
    let asked = format!("A switchover from member {from} to member {to} was asked for {when}");
    match &switchover.outcome {
        None => format!("{asked}, and is under way."),
        Some(outcome) if outcome.done => format!("{asked}: {}.", outcome.sentence),
        Some(outcome) => format!("{asked}, and did not come about: {}.", outcome.sentence),
    }
}

fn promise(quorum: &Quorum) -> String {
    match quorum.durability {
        Durability::Majority if quorum.k_floor == 0 => format!(
            "A write is acknowledged by the master alone; {}.",
            arithmetic(quorum)
        ),
        Durability::Majority => format!(
            "A write is acknowledged by the master and {} other of {} voters; {}.",
            quorum.k_floor,
            quorum.voters,
            arithmetic(quorum)
        ),
        Durability::Async => format!(
            "A write is acknowledged by the master alone; an election asks all {} voters and takes the best of those that answer in time.",
            quorum.voters
        ),
    }
}

fn arithmetic(quorum: &Quorum) -> String {
    let Quorum {
        voters,
        k_floor,
        needed,
        ..
    } = quorum;
    format!("an election needs the reports of {voters} - {k_floor} = {needed} voters")
}

fn waits(waiting: &Waiting, now: Timestamp) -> String {
    let effect = if waiting.blocked {
        "It accepts no writes until"
    } else {
        "It waits until"
    };
    let mut lines = vec![effect.to_owned()];
    lines.extend(waiting.ends_when.iter().map(|end| format!("  {end}")));
    if let Some(until) = waiting.until {
        lines.push(format!("  at the latest {}", moment(until, now)));
    }
    if !waiting.voters.is_empty() {
        lines.push(indented(&voters(&waiting.voters, None)));
    }
    lines.join("\n")
}

fn failover(failover: &FailoverView, now: Timestamp) -> String {
    let record = &failover.record;
    let took = match failover.unpublished_millis {
        Some(millis) => format!(", {millis} ms without a master"),
        None => ", not over yet".to_owned(),
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut tell = |what: &str, text: String| rows.push(vec![what.to_owned(), text]);
    let when = moment(record.times.decided, now);
    tell("when", format!("{when}{took}"));
    let ending = &record.ending;
    tell(
        "why",
        format!("{} ({})", ending.sentence, ending.cause.as_str()),
    );
    if let Some(switchover) = &record.switchover {
        let asked = moment(switchover.asked_at, now);
        tell(
            "asked",
            format!(
                "switchover {} to member {}, {asked}",
                switchover.number, switchover.to
            ),
        );
    }
    if record.attempt > 1 {
        let again = format!(
            "attempt {}: the master elected in epoch {} never opened",
            record.attempt,
            record.epoch.0.saturating_sub(1)
        );
        tell("again", again);
    }
    if let Some(before) = &record.before {
        tell("before", who(before));
    }
    let counted = format!(
        "{}; {} counted",
        arithmetic(&record.quorum),
        failover.counted
    );
    tell("quorum", counted);
    if let Some(winner) = &record.winner {
        let sentence = format!("{}: {}", who(&winner.master), winner.won_by.sentence());
        tell("winner", sentence);
    }
    let phases = failover.phases.iter();
    let phases: Vec<String> = phases
        .map(|phase| format!("{} {} ms", phase.name, phase.millis))
        .collect();
    if !phases.is_empty() {
        tell("phases", phases.join(", "));
    }
    if let Some(loss) = &record.data_loss {
        let members: Vec<String> = loss.given_up.iter().map(ToString::to_string).collect();
        tell(
            "given up",
            format!("members {}, at an operator's word", members.join(", ")),
        );
        loss.told.iter().for_each(|told| tell("", told.clone()));
    }
    let mut lines = vec![
        format!("Epoch {}: {}", record.epoch, failover.change()),
        indented(&output::table(&rows)),
    ];
    if !record.voters.is_empty() {
        lines.push(indented(&voters(
            &record.voters,
            Some(record.times.decided),
        )));
    }
    lines.join("\n")
}

fn who(master: &Master) -> String {
    let address = match &master.address {
        Some(address) => format!(" at {address}"),
        None => String::new(),
    };
    format!("member {}{address}, task {}", master.member, master.task_id)
}

/// The voters with what they held; `since` says from when the reports are counted in time.
fn voters(voters: &[VoterAccount], since: Option<Timestamp>) -> String {
    let head = ["VOTER", "COUNTED", "MARKER", "HELD", "NOT YET APPLIED"];
    let row = |voter: &VoterAccount| {
        let counted = match (&voter.held, voter.reported, since) {
            (None, ..) => "no".to_owned(),
            (Some(_), Some(at), Some(since)) => {
                format!("after {} ms", at.since(since).as_millis())
            }
            (Some(_), ..) => "yes".to_owned(),
        };
        let missing = voter.missing.clone().unwrap_or_default();
        let (marker, held, unapplied) = match &voter.held {
            Some(held) => (
                held.marker.to_string(),
                one_line(&held.received),
                one_line(&held.unapplied),
            ),
            None => ("-".to_owned(), missing, String::new()),
        };
        let unapplied = match (&voter.held, unapplied.as_str()) {
            (Some(_), "") => "nothing".to_owned(),
            _ => unapplied,
        };
        vec![voter.member.to_string(), counted, marker, held, unapplied]
    };
    let head = head.map(String::from).to_vec();
    let rows: Vec<_> = std::iter::once(head)
        .chain(voters.iter().map(row))
        .collect();
    output::table(&rows)
}

/// MySQL prints its sets with line breaks.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text
    }
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("  {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A time as people say it: `3m 20s ago (2026-02-01 12:00:00.123 UTC)`.
fn moment(at: Timestamp, now: Timestamp) -> String {
    // Seconds are exact enough beside the absolute time.
    let whole = |duration: std::time::Duration| {
        let seconds = std::time::Duration::from_secs(duration.as_secs());
        humantime::format_duration(seconds).to_string()
    };
    let relative = if at > now {
        format!("in {}", whole(at.since(now)))
    } else {
        format!("{} ago", whole(now.since(at)))
    };
    format!("{relative} ({at})")
}
