//! A view of the master for people and tests: `/state`, the few things of it that matter here. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::core::Core;
use crate::{local::reservation, mesos::json::value_of};

impl Core {
    /// Agents with what is reserved on them, frameworks and tasks, named as in Mesos' `/state`.
    pub fn state(&self) -> Value {
        let agents = self.agents.iter().map(|(id, agent)| {
            let mut reserved: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
            for resource in agent.total.list() {
                if let Some(role) = reservation::role(resource) {
                    reserved.entry(role).or_default().push(value_of(resource));
                }
            }
            json!({
                "id": id,
                "hostname": agent.info.hostname,
                "pid": format!("slave(1)@{}:{}", agent.ip, agent.info.port()),
                "active": agent.link.is_some(),
                "reserved_resources_full": reserved,
            })
        });
        let frameworks = self.frameworks.iter().map(|(id, framework)| {
            let tasks = framework.tasks.iter().map(|(task_id, task)| {
                json!({
                    "id": task_id,
                    "slave_id": task.agent_id(),
                    "executor_id": task.executor_id(),
                    "state": task.state.as_str_name(),
                })
            });
            json!({
                "id": id,
                "name": framework.info.name,
                "active": framework.stream.is_some(),
                "tasks": tasks.collect::<Vec<_>>(),
            })
        });
        json!({
            "id": self.master.id,
            "version": self.master.version(),
            "slaves": agents.collect::<Vec<_>>(),
            "frameworks": frameworks.collect::<Vec<_>>(),
            "completed_frameworks": self.completed.iter().collect::<Vec<_>>(),
        })
    }
}
