//! Agents that an operator empties, switches off or gives up. Pure.
//!
//! A deactivated agent gets no offers; a draining one is deactivated and told to end its tasks, and
//! is drained when all of them and all operations are acknowledged. Reactivation undoes either. An
//! agent that is gone is removed with all that it runs, for good; if its process still lives it is
//! told to end.
//!
//! Source: the page "Agent Draining" of the Mesos documentation, and `_drainAgent`,
//! `_reactivateAgent`, `_markAgentGone` in `src/master/http.cpp`.

use crate::local::wire::{Proto, ToAgent};
use crate::mesos::v1::{DurationInfo, ExecutorId, TaskState, TaskStatus, task_status::Reason};
use crate::time::Timestamp;

use super::core::{Core, Out};
use super::events;
use super::maintenance::machine_id;
use super::registry::Drain;

/// For what an agent is removed. Mesos has other words for either (`__removeSlave` and `_removeSlave` in
/// `src/master/master.cpp`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is given up for good.
    Gone,
    /// Its machine goes down for maintenance.
    MachineDown,
}

impl Core {
    fn is_known(&self, agent_id: &str) -> bool {
        self.agents.contains_key(agent_id)
            || self.recovered.contains_key(agent_id)
            || self.unreachable.contains_key(agent_id)
    }

    /// Begins to empty an agent.
    ///
    /// # Errors
    ///
    /// Why it cannot be drained.
    pub(super) fn drain(
        &mut self,
        agent_id: &str,
        max_grace_period: Option<DurationInfo>,
        mark_gone: bool,
        now: Timestamp,
    ) -> Result<(), String> {
        if let Some(agent) = self.agents.get(agent_id) {
            let id = machine_id(&agent.info, &agent.ip);
            if self.registry.machine(&id).is_some() {
                return Err(format!(
                    "Agent {agent_id} is part of a maintenance schedule under Machine {} ({})",
                    id.hostname(),
                    id.ip()
                ));
            }
        }
        if !self.is_known(agent_id) {
            return Err("Unknown agent".to_owned());
        }
        let drain = Drain {
            max_grace_period: max_grace_period.map(Proto),
            mark_gone,
            drained: false,
        };
        self.registry.draining.insert(agent_id.to_owned(), drain);
        self.switch_off(agent_id);
        self.drain_again(agent_id);
        self.finish_drains(now);
        Ok(())
    }

    /// Tells an agent that is (again) there to end its tasks, if it is to be emptied.
    pub(super) fn drain_again(&mut self, agent_id: &str) {
        let drain = self.registry.draining.get(agent_id);
        let Some(drain) = drain.filter(|drain| !drain.drained) else {
            return;
        };
        let message = ToAgent::Drain {
            max_grace_period: drain.max_grace_period.clone(),
            mark_gone: drain.mark_gone,
        };
        self.tell(agent_id, message);
    }

    /// Agents on which nothing is left are drained.
    pub(super) fn finish_drains(&mut self, now: Timestamp) {
        let draining = self.registry.draining.iter();
        let open: Vec<(String, bool)> = draining
            .filter(|(_, drain)| !drain.drained)
            .map(|(id, drain)| (id.clone(), drain.mark_gone))
            .collect();
        for (agent_id, mark_gone) in open {
            let mut frameworks = self.frameworks.values();
            let has_tasks = frameworks.any(|framework| {
                let mut tasks = framework.tasks.values();
                tasks.any(|task| task.agent_id() == agent_id)
            });
            let mut operations = self.operations.values();
            let has_operations = operations.any(|known| known.agent_id == agent_id);
            // What an agent runs that is not here cannot be known.
            if has_tasks || has_operations || !self.agents.contains_key(&agent_id) {
                continue;
            }
            tracing::info!(%agent_id, mark_gone, "agent drained");
            if mark_gone {
                self.give_up(&agent_id, now);
            } else if let Some(drain) = self.registry.draining.get_mut(&agent_id) {
                drain.drained = true;
                self.store();
            }
        }
    }

    /// Keeps offers from an agent.
    ///
    /// # Errors
    ///
    /// Nobody knows it.
    pub(super) fn deactivate(&mut self, agent_id: &str) -> Result<(), String> {
        if !self.is_known(agent_id) {
            return Err("Unknown agent".to_owned());
        }
        self.switch_off(agent_id);
        Ok(())
    }

    fn switch_off(&mut self, agent_id: &str) {
        self.registry.deactivated.insert(agent_id.to_owned());
        self.store();
        self.rescind_offers(agent_id);
        self.rescind_inverse_offers(agent_id);
    }

    /// Makes offers of an agent again.
    ///
    /// # Errors
    ///
    /// It gets offers already, or is still being emptied.
    pub(super) fn reactivate(&mut self, agent_id: &str) -> Result<(), String> {
        if !self.registry.deactivated.contains(agent_id) {
            return Err("Agent is not deactivated".to_owned());
        }
        let drain = self.registry.draining.get(agent_id);
        if drain.is_some_and(|drain| !drain.drained) {
            return Err("Agent is still in the DRAINING state".to_owned());
        }
        self.registry.draining.remove(agent_id);
        self.registry.deactivated.remove(agent_id);
        self.store();
        Ok(())
    }

    /// Gives an agent up for good.
    ///
    /// # Errors
    ///
    /// Nobody knows it.
    pub(super) fn mark_gone(&mut self, agent_id: &str, now: Timestamp) -> Result<(), String> {
        if self.registry.gone.contains(agent_id) {
            return Ok(());
        }
        if !self.is_known(agent_id) {
            return Err(format!("Agent '{agent_id}' not found"));
        }
        self.give_up(agent_id, now);
        Ok(())
    }

    fn give_up(&mut self, agent_id: &str, now: Timestamp) {
        self.registry.gone.insert(agent_id.to_owned());
        self.registry.draining.remove(agent_id);
        self.registry.deactivated.remove(agent_id);
        self.recovered.remove(agent_id);
        self.unreachable.remove(agent_id);
        // Stored before anybody hears of it: a master that dies now must not take it back.
        self.store();
        self.remove_agent(agent_id, Removal::Gone, "Agent has been marked gone", now);
    }

    /// Removes an agent with all that it runs, and ends it.
    pub(super) fn remove_agent(
        &mut self,
        agent_id: &str,
        removal: Removal,
        why: &str,
        now: Timestamp,
    ) {
        tracing::info!(%agent_id, why, "agent removed");
        let mut ended = Vec::new();
        for (framework_id, framework) in &mut self.frameworks {
            framework.tasks.retain(|task_id, task| {
                let here = task.agent_id() == agent_id;
                if here && !super::core::is_terminal(task.state) {
                    let executor = task.executor_id().map(str::to_owned);
                    ended.push((framework_id.clone(), task_id.clone(), executor));
                }
                !here
            });
        }
        for (framework_id, task_id, executor_id) in ended {
            let state = match removal {
                Removal::Gone => self.lost_state(&framework_id, TaskState::TaskGoneByOperator),
                Removal::MachineDown => TaskState::TaskLost,
            };
            let reason = match state {
                TaskState::TaskGoneByOperator => Reason::AgentRemovedByOperator,
                _ => Reason::AgentRemoved,
            };
            let status = events::master_status(&task_id, Some(agent_id), state, reason, why, now);
            let status = TaskStatus {
                executor_id: executor_id.map(|value| ExecutorId { value }),
                ..status
            };
            self.send(&framework_id, events::update(status));
        }
        self.rescind_offers(agent_id);
        self.rescind_inverse_offers(agent_id);
        self.forget_operations_on(agent_id);
        let reason = why.to_owned();
        self.tell(agent_id, ToAgent::Shutdown { reason });
        let Some(agent) = self.agents.remove(agent_id) else {
            return;
        };
        if let Some(link) = agent.link {
            self.out.push(Out::CloseLink(link));
        }
        self.store();
        let ids: Vec<String> = self.frameworks.keys().cloned().collect();
        for framework_id in ids {
            self.send(&framework_id, events::failure(agent_id, None));
        }
    }
}
