//! Agents that an operator of Mesos wants to take away for a while, and what is answered to that.
//!
//! Mesos asks with *inverse offers* (Mesos page "Maintenance Primitives"). To accept one is a promise that the agent
//! may be taken away at the announced time; so it is accepted where every cluster can do without the agent, and declined
//! where one cannot yet ([`drain`](super::drain)). Either way Mesos asks again ([`ASKED_AGAIN`], [`ASKED_SOON`]) as long as the schedule
//! stands, and what has changed meanwhile is answered then: nothing has to be remembered but what is planned.

use std::{collections::BTreeMap, time::Duration};

use super::action::Action;
use crate::time::Timestamp;

/// For how long Mesos is not to repeat an inverse offer that was accepted.
pub const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// The same for one that was declined: the agent is being drained, and its operator waits.
pub const ASKED_SOON: Duration = Duration::from_secs(10);

/// After how long without a repetition the schedule was certainly changed: Mesos does not tell of that once an
/// inverse offer was answered. Three times what it waits, for a master may be busy or fail over.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(180);

/// An agent is wanted back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InverseOffer {
    /// Names it in the answer.
    pub id: String,
    /// The agent.
    pub agent_id: String,
    /// When the agent will not be available any more.
    pub from: Timestamp,
    /// For how long; for ever if that is not said.
    pub lasts: Option<Duration>,
}

/// When an agent is to be unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From when on.
    pub from: Timestamp,
    /// Until when; `None`: it does not come back.
    pub ends: Option<Timestamp>,
}

impl Window {
    /// Whether there is a moment at which agents with these windows are both away.
    pub fn overlaps(self, other: Self) -> bool {
        let before = |one: Self, other: Self| one.ends.is_some_and(|ends| ends <= other.from);
        !before(self, other) && !before(other, self)
    }

    /// Whether it lasts for longer than that.
    pub fn lasts_longer_than(self, time: Duration) -> bool {
        self.ends.is_none_or(|ends| ends > self.from.plus(time))
    }
}

/// Whether an agent can be given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is needed.
    Needed,
    /// It is not.
    Free,
    /// That cannot be said before a write that is under way is done.
    Unknown,
}

/// The agents that are to be taken away.
#[derive(Debug, Default)]
pub struct Maintenance {
    /// The newest inverse offer of each agent, and when it came.
    agents: BTreeMap<String, (InverseOffer, Timestamp)>,
    /// Inverse offers without an answer: their ids and agents.
    open: BTreeMap<String, String>,
}

impl Maintenance {
    /// Takes an inverse offer in.
    pub(super) fn asked(&mut self, offer: InverseOffer, now: Timestamp) {
        self.open.insert(offer.id.clone(), offer.agent_id.clone());
        self.agents.insert(offer.agent_id.clone(), (offer, now));
    }

    /// An inverse offer was withdrawn. The agent that it was about.
    pub(super) fn withdrawn(&mut self, id: &str) -> Option<String> {
        self.open.remove(id);
        let (agent, _) = self.agents.iter().find(|(_, (offer, _))| offer.id == id)?;
        let agent = agent.clone();
        self.agents.remove(&agent);
        Some(agent)
    }

    /// What was asked in a subscription that is over needs no answer any more; if it still holds it is asked again.
    pub(super) fn lost(&mut self) {
        self.open.clear();
    }

    /// Forgets what was not repeated for long, and what is over. The agents.
    pub(super) fn forget_past(&mut self, now: Timestamp) -> Vec<String> {
        let past = |(offer, heard): &(InverseOffer, Timestamp)| ends(offer, *heard) <= now;
        let agents: Vec<String> = self
            .agents
            .iter()
            .filter(|(_, known)| past(known))
            .map(|(agent, _)| agent.clone())
            .collect();
        for agent in &agents {
            self.agents.remove(agent);
        }
        agents
    }

    /// When there is something to forget.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let ends = self
            .agents
            .values()
            .map(|(offer, heard)| ends(offer, *heard));
        ends.min()
    }

    /// The answers to what is open, by what is needed.
    pub(super) fn answers(&self, need: impl Fn(&str) -> Need) -> Vec<Action> {
        let ids = |wanted: Need| -> Vec<String> {
            let open = self.open.iter().filter(|(_, agent)| need(agent) == wanted);
            open.map(|(id, _)| id.clone()).collect()
        };
        let (needed, free) = (ids(Need::Needed), ids(Need::Free));
        let mut answers = Vec::new();
        if !needed.is_empty() {
            answers.push(Action::DeclineInverse { offers: needed });
        }
        if !free.is_empty() {
            answers.push(Action::AcceptInverse { offers: free });
        }
        answers
    }

    /// The agent that an inverse offer without an answer is about.
    pub fn asked_for(&self, id: &str) -> Option<&str> {
        self.open.get(id).map(String::as_str)
    }

    /// When an agent is to be unavailable, if it is.
    pub fn window(&self, agent_id: &str) -> Option<Window> {
        let (offer, _) = self.agents.get(agent_id)?;
        Some(Window {
            from: offer.from,
            ends: offer.lasts.map(|lasts| offer.from.plus(lasts)),
        })
    }

    /// These are being answered.
    pub(super) fn answered(&mut self, offers: &[String]) {
        for id in offers {
            self.open.remove(id);
        }
    }

    /// What is planned for an agent, as a sentence.
    pub fn of(&self, agent_id: &str) -> Option<String> {
        let (offer, _) = self.agents.get(agent_id)?;
        let lasts = match offer.lasts {
            Some(lasts) => format!("for {}", humantime::format_duration(lasts)),
            None => "for good".to_owned(),
        };
        Some(format!(
            "agent {agent_id} is to be unavailable from {} {lasts}",
            offer.from
        ))
    }
}

/// When an inverse offer that came at `heard` says nothing any more.
fn ends(offer: &InverseOffer, heard: Timestamp) -> Timestamp {
    let over = offer.lasts.map(|lasts| offer.from.plus(lasts));
    over.unwrap_or(Timestamp::FAR_FUTURE)
        .min(heard.plus(FORGOTTEN_AFTER))
}
