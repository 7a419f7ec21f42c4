//! Maintenance: machines that will be away, what frameworks are asked because of it, and machines
//! that are down. Pure.
//!
//! An operator's schedule names machines and from when on they will be away. Offers on them say so,
//! and every framework that has or is offered something there gets an inverse offer, which it
//! accepts or declines; the operator reads the answers and decides. Nothing is ended before
//! START_MAINTENANCE.
//!
//! Source: the page "Maintenance Primitives" of the Mesos documentation, `src/master/maintenance.cpp`,
//! and `generateInverseOffers` of its allocator.

use core::net::Ipv4Addr;
use std::collections::{BTreeMap, BTreeSet};

use crate::local::wire::{Proto, ToAgent};
use crate::mesos::json;
use crate::mesos::v1::master::{
    ClusterStatus, InverseOfferStatus, Schedule, cluster_status::DrainingMachine,
    inverse_offer_status,
};
use crate::mesos::v1::{
    AgentId, AgentInfo, FrameworkId, InverseOffer, MachineId, OfferId, Unavailability,
};
use crate::time::Timestamp;

use super::core::{Agent, Core};
use super::draining::Removal;
use super::registry::{Machine, normalized};
use super::{events, offers, tasks};

/// What a framework answers to an inverse offer.
#[derive(Debug, Clone, Copy)]
pub(super) enum InverseAnswer {
    /// It can do without the agent.
    Accept,
    /// It cannot.
    Decline,
}

/// Inverse offers, and what became of them.
#[derive(Debug, Default)]
pub(super) struct InverseOffers {
    /// Framework and agent of those without an answer, by id.
    open: BTreeMap<String, (String, String)>,
    /// Until when a framework is not asked again, by framework and agent.
    filters: BTreeMap<(String, String), Timestamp>,
    /// The newest answers, by agent and framework.
    answers: BTreeMap<(String, String), InverseOfferStatus>,
}

impl InverseOffers {
    /// The framework's scheduler is gone: it cannot answer.
    pub fn forget_framework(&mut self, framework_id: &str) {
        self.open.retain(|_, (owner, _)| owner != framework_id);
        self.forget_filters_of(framework_id);
    }

    /// The framework wants to be asked again.
    pub fn forget_filters_of(&mut self, framework_id: &str) {
        self.filters.retain(|(owner, _), _| owner != framework_id);
    }
}

/// The machine that an agent runs on.
pub(super) fn machine_id(info: &AgentInfo, ip: &str) -> MachineId {
    normalized(MachineId {
        hostname: Some(info.hostname.clone()),
        ip: Some(ip.to_owned()),
    })
}

impl Core {
    /// When an agent will be away, if that is known.
    pub(super) fn unavailability(&self, agent: &Agent) -> Option<Unavailability> {
        let machine = self.registry.machine(&machine_id(&agent.info, &agent.ip))?;
        Some(machine.unavailability.0)
    }

    /// Takes the operator's schedule in place of the one before it.
    ///
    /// # Errors
    ///
    /// What is wrong with it; then the old one stays.
    pub(super) fn update_schedule(
        &mut self,
        schedule: Schedule,
        now: Timestamp,
    ) -> Result<(), String> {
        let mut wanted: Vec<(MachineId, Unavailability)> = Vec::new();
        for window in &schedule.windows {
            if window.machine_ids.is_empty() {
                return Err("List of machines in the maintenance window is empty".to_owned());
            }
            let duration = window.unavailability.duration.as_ref();
            if duration.is_some_and(|duration| duration.nanoseconds < 0) {
                return Err("Unavailability 'duration' is negative".to_owned());
            }
            for id in &window.machine_ids {
                let id = normalized(id.clone());
                check_machine(&id)?;
                if wanted.iter().any(|(known, _)| *known == id) {
                    return Err(twice(&id));
                }
                wanted.push((id, window.unavailability));
            }
        }
        let is_wanted = |id: &MachineId| wanted.iter().any(|(one, _)| one == id);
        let mut down = self.registry.machines.iter().filter(|one| one.down);
        if let Some(kept) = down.find(|one| !is_wanted(&one.id.0)) {
            return Err(format!(
                "Machine '{}' is deactivated and cannot be removed from the schedule",
                json::to_string(&kept.id.0)
            ));
        }
        let machines = wanted.into_iter().map(|(id, unavailability)| {
            let known = self.registry.machine(&id);
            Machine {
                down: known.is_some_and(|known| known.down),
                id: Proto(id),
                unavailability: Proto(unavailability),
            }
        });
        self.registry.machines = machines.collect();
        self.registry.schedule = Some(Proto(schedule));
        self.store();
        // Everybody shall hear of the change as soon as possible; like Mesos, without looking at
        // which machines have changed.
        let agents: Vec<String> = self.agents.keys().cloned().collect();
        for agent_id in &agents {
            self.rescind_offers(agent_id);
            self.rescind_inverse_offers(agent_id);
        }
        self.inverse.filters.clear();
        self.inverse.answers.clear();
        self.allocate(now);
        Ok(())
    }

    /// The machines go down now: their agents are ended and removed.
    ///
    /// # Errors
    ///
    /// Which machine cannot go down, and why; then none does.
    pub(super) fn start_maintenance(
        &mut self,
        machines: Vec<MachineId>,
        now: Timestamp,
    ) -> Result<(), String> {
        let machines = checked(machines)?;
        for id in &machines {
            let known = self.scheduled(id)?;
            if known.down {
                return Err(format!(
                    "Machine '{}' is not in DRAINING mode and cannot be brought down",
                    json::to_string(id)
                ));
            }
        }
        for machine in &mut self.registry.machines {
            machine.down |= machines.contains(&machine.id.0);
        }
        self.store();
        let on_them = |agent: &Agent| machines.contains(&machine_id(&agent.info, &agent.ip));
        let gone: Vec<String> = self
            .agents
            .iter()
            .filter(|(_, agent)| on_them(agent))
            .map(|(id, _)| id.clone())
            .collect();
        for agent_id in gone {
            let host = self.agents.get(&agent_id);
            let host = host.map_or_else(String::new, |agent| agent.info.hostname.clone());
            let why = format!("Agent {host} removed: Operator initiated 'Machine DOWN'");
            self.remove_agent(&agent_id, Removal::MachineDown, &why, now);
        }
        Ok(())
    }

    /// The machines are back: their agents may register again.
    ///
    /// # Errors
    ///
    /// Which machine is not down; then none comes back.
    pub(super) fn stop_maintenance(&mut self, machines: Vec<MachineId>) -> Result<(), String> {
        let machines = checked(machines)?;
        for id in &machines {
            if !self.scheduled(id)?.down {
                return Err(format!(
                    "Machine '{}' is not in DOWN mode and cannot be brought up",
                    json::to_string(id)
                ));
            }
        }
        self.registry
            .machines
            .retain(|machine| !machines.contains(&machine.id.0));
        if let Some(Proto(schedule)) = &mut self.registry.schedule {
            for window in &mut schedule.windows {
                window
                    .machine_ids
                    .retain(|id| !machines.contains(&normalized(id.clone())));
            }
            schedule
                .windows
                .retain(|window| !window.machine_ids.is_empty());
        }
        self.store();
        Ok(())
    }

    fn scheduled(&self, id: &MachineId) -> Result<&Machine, String> {
        self.registry.machine(id).ok_or_else(|| {
            format!(
                "Machine '{}' is not part of a maintenance schedule",
                json::to_string(id)
            )
        })
    }

    /// What an agent is told that may not register, if so.
    pub(super) fn refusal(&self, agent_id: &str, info: &AgentInfo, ip: &str) -> Option<ToAgent> {
        if self.registry.gone.contains(agent_id) {
            let reason = "Agent has been marked gone".to_owned();
            return Some(ToAgent::Shutdown { reason });
        }
        // Whether it is in another region than the master could not be told.
        if info.domain.is_some() && self.master.domain.is_none() {
            let reason = "Agent is configured with a domain, and the master is not".to_owned();
            return Some(ToAgent::Refused { reason });
        }
        let machine = self.registry.machine(&machine_id(info, ip))?;
        let reason = "Machine is `DOWN`".to_owned();
        machine.down.then_some(ToAgent::Refused { reason })
    }

    /// The operator's schedule.
    pub(super) fn schedule(&self) -> Schedule {
        let known = self.registry.schedule.clone();
        known.map(|Proto(schedule)| schedule).unwrap_or_default()
    }

    /// What machines under maintenance do, and what their frameworks answered.
    pub(super) fn maintenance_status(&self) -> ClusterStatus {
        let mut status = ClusterStatus::default();
        for machine in &self.registry.machines {
            let id = machine.id.0.clone();
            if machine.down {
                status.down_machines.push(id);
                continue;
            }
            let on_it = |agent_id: &str| {
                let agent = self.agents.get(agent_id);
                agent.is_some_and(|agent| machine_id(&agent.info, &agent.ip) == id)
            };
            let answers = self.inverse.answers.iter();
            let statuses = answers
                .filter(|((agent_id, _), _)| on_it(agent_id))
                .map(|(_, answer)| answer.clone())
                .collect();
            status
                .draining_machines
                .push(DrainingMachine { id, statuses });
        }
        status
    }

    /// Asks frameworks to leave agents that will be away.
    pub(super) fn offer_inversely(&mut self, now: Timestamp) {
        self.inverse.filters.retain(|_, until| *until > now);
        let mut made: BTreeMap<String, Vec<InverseOffer>> = BTreeMap::new();
        let agents: Vec<String> = self.agents.keys().cloned().collect();
        for agent_id in agents {
            for framework_id in self.asked_to_leave(&agent_id) {
                if let Some(offer) = self.inverse_offer(&framework_id, &agent_id) {
                    made.entry(framework_id).or_default().push(offer);
                }
            }
        }
        for (framework_id, offers) in made {
            self.send(&framework_id, events::inverse_offers(offers));
        }
    }

    /// Frameworks that have or are offered something on an agent that will be away, and that are to
    /// be asked now.
    fn asked_to_leave(&self, agent_id: &str) -> BTreeSet<String> {
        let away = self.agents.get(agent_id).is_some_and(|agent| {
            agent.link.is_some()
                && !self.registry.deactivated.contains(agent_id)
                && self.unavailability(agent).is_some()
        });
        let asked = |framework_id: &String| {
            let key = (framework_id.clone(), agent_id.to_owned());
            let open = self.inverse.open.values().any(|one| *one == key);
            let there = self
                .frameworks
                .get(framework_id)
                .is_some_and(|framework| framework.stream.is_some());
            away && there && !open && !self.inverse.filters.contains_key(&key)
        };
        let mut present: BTreeSet<String> = self.agents_frameworks(agent_id);
        let offered = self.offers.values();
        present.extend(
            offered
                .filter(|offer| offer.agent_id == agent_id)
                .map(|offer| offer.framework_id.clone()),
        );
        present.into_iter().filter(|id| asked(id)).collect()
    }

    /// Frameworks that run something on an agent.
    fn agents_frameworks(&self, agent_id: &str) -> BTreeSet<String> {
        let agent = self.agents.get(agent_id);
        let executors = agent.into_iter().flat_map(|agent| agent.executors.keys());
        let mut present: BTreeSet<String> = executors.map(|(owner, _)| owner.clone()).collect();
        for (framework_id, framework) in &self.frameworks {
            let mut tasks = framework.tasks.values();
            if tasks.any(|task| task.agent_id() == agent_id && task.is_live()) {
                present.insert(framework_id.clone());
            }
        }
        present
    }

    fn inverse_offer(&mut self, framework_id: &str, agent_id: &str) -> Option<InverseOffer> {
        let id = self.new_offer_id();
        let agent = self.agents.get(agent_id)?;
        let offer = InverseOffer {
            id: OfferId { value: id.clone() },
            url: Some(offers::url(agent)),
            framework_id: FrameworkId {
                value: framework_id.to_owned(),
            },
            agent_id: Some(AgentId {
                value: agent_id.to_owned(),
            }),
            unavailability: self.unavailability(agent)?,
            resources: Vec::new(),
        };
        let key = (framework_id.to_owned(), agent_id.to_owned());
        self.inverse.open.insert(id, key);
        Some(offer)
    }

    /// A framework answers; what is not open any more is passed over.
    pub(super) fn answer_inverse(
        &mut self,
        framework_id: &str,
        ids: &[OfferId],
        answer: InverseAnswer,
        refuse_seconds: f64,
        now: Timestamp,
    ) {
        for id in ids {
            let open = self.inverse.open.get(&id.value);
            if open.is_none_or(|(owner, _)| owner != framework_id) {
                continue;
            }
            let Some(key) = self.inverse.open.remove(&id.value) else {
                continue;
            };
            let status = match answer {
                InverseAnswer::Accept => inverse_offer_status::Status::Accept,
                InverseAnswer::Decline => inverse_offer_status::Status::Decline,
            };
            let stated = InverseOfferStatus {
                status: status.into(),
                framework_id: FrameworkId {
                    value: framework_id.to_owned(),
                },
                timestamp: tasks::nanoseconds(now),
            };
            let (_, agent_id) = key.clone();
            let by_agent = (agent_id, framework_id.to_owned());
            self.inverse.answers.insert(by_agent, stated);
            let seconds = offers::usable_refusal(refuse_seconds);
            if seconds > 0.0 {
                let until = now.plus(self.clocks.scaled(seconds));
                self.inverse.filters.insert(key, until);
            }
        }
    }

    /// Takes back every inverse offer on an agent.
    pub(super) fn rescind_inverse_offers(&mut self, agent_id: &str) {
        let open = self.inverse.open.iter();
        let gone: Vec<(String, String)> = open
            .filter(|(_, (_, asked))| asked == agent_id)
            .map(|(id, (owner, _))| (id.clone(), owner.clone()))
            .collect();
        for (id, framework_id) in gone {
            self.inverse.open.remove(&id);
            self.send(&framework_id, events::rescind_inverse_offer(&id));
        }
    }
}

fn checked(machines: Vec<MachineId>) -> Result<Vec<MachineId>, String> {
    if machines.is_empty() {
        return Err("List of machines is empty".to_owned());
    }
    let mut checked: Vec<MachineId> = Vec::new();
    for id in machines.into_iter().map(normalized) {
        check_machine(&id)?;
        if checked.contains(&id) {
            return Err(twice(&id));
        }
        checked.push(id);
    }
    Ok(checked)
}

fn twice(id: &MachineId) -> String {
    format!(
        "Machine '{}' appears more than once in the schedule",
        json::to_string(id)
    )
}

fn check_machine(id: &MachineId) -> Result<(), String> {
    if id.hostname().is_empty() && id.ip().is_empty() {
        return Err("Both 'hostname' and 'ip' for a machine are empty".to_owned());
    }
    if !id.ip().is_empty() && id.ip().parse::<Ipv4Addr>().is_err() {
        return Err(format!("Failed to parse the IP '{}'", id.ip()));
    }
    Ok(())
}
