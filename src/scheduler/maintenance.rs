//! Agents that an operator of Mesos wants to take away for a while, and what is answered to that.
//!
//! Mesos asks with *inverse offers* (Mesos page "Maintenance Primitives"). To accept one is a promise that the agent
//! may be taken away at the announced time; so it is accepted where no member runs, and declined where one does. Either
//! way Mesos asks again after [`ASKED_AGAIN`] as long as the schedule stands, and what has changed meanwhile is answered
//! then: nothing has to be remembered but what explanations tell.

use std::{collections::BTreeMap, time::Duration};

use super::action::Action;
use crate::time::Timestamp;

/// For how long Mesos is not to repeat an inverse offer that was answered.
pub const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// After how long without a repetition the schedule was certainly changed: Mesos does not tell of that once an
/// inverse offer was answered. Three times what it waits, for a master may be busy or fail over.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(180);

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

    /// The answers to what is open. `in_use` says whether a member runs on an agent.
    pub(super) fn answers(&self, in_use: impl Fn(&str) -> bool) -> Vec<Action> {
        let (needed, free): (Vec<_>, Vec<_>) = self.open.iter().partition(|(_, a)| in_use(a));
        let ids = |open: Vec<(&String, &String)>| -> Vec<String> {
            open.into_iter().map(|(id, _)| id.clone()).collect()
        };
        let (needed, free) = (ids(needed), ids(free));
        let mut answers = Vec::new();
        if !needed.is_empty() {
            answers.push(Action::DeclineInverse { offers: needed });
        }
        if !free.is_empty() {
            answers.push(Action::AcceptInverse { offers: free });
        }
        answers
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
