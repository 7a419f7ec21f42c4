//! Who is offered what. Pure.
//!
//! Every round offers all that is free on an agent, as one offer, to the role that has the least of
//! the cluster and neither suppressed offers nor refused what is there. Rounds come with the clock,
//! and at once when somebody subscribes, revives, registers or is torn down. What a task or an
//! executor frees waits for the next round, so that both parts come back in one offer.

use std::collections::BTreeMap;

use crate::local::resources::Resources;
use crate::mesos::v1::{
    Address, AgentId, ExecutorId, FrameworkId, Offer, OfferId, Url, resource::AllocationInfo,
};
use crate::time::Timestamp;

use super::core::{Core, Filter, Offered};
use super::events;

/// Mesos offers nothing below this; see `MIN_CPUS` and `MIN_MEM` in its allocator.
const MIN_CPUS: f64 = 0.01;
const MIN_MEM_MIB: f64 = 32.0;

impl Core {
    /// Offers everything that is free and wanted.
    pub(super) fn allocate(&mut self, now: Timestamp) {
        for framework in self.frameworks.values_mut() {
            framework.filters.retain(|filter| filter.until > now);
        }
        let mut made: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
        let agents: Vec<String> = self.agents.keys().cloned().collect();
        for agent_id in agents {
            let free = self.free(&agent_id);
            if free.total("cpus") < MIN_CPUS && free.total("mem") < MIN_MEM_MIB {
                continue;
            }
            if let Some((framework_id, role)) = self.choose(&agent_id, &free)
                && let Some(offer) = self.offer(&agent_id, &framework_id, &role, &free)
            {
                made.entry(framework_id).or_default().push(offer);
            }
        }
        for (framework_id, offers) in made {
            self.send(&framework_id, events::offers(offers));
        }
    }

    /// What nobody uses or was offered on a connected agent.
    fn free(&self, agent_id: &str) -> Resources {
        let Some(agent) = self
            .agents
            .get(agent_id)
            .filter(|agent| agent.link.is_some())
        else {
            return Resources::default();
        };
        let mut free = agent.total.clone();
        for executor in agent.executors.values() {
            free.subtract(&Resources::new(&executor.resources).unallocated());
        }
        for framework in self.frameworks.values() {
            for task in framework.tasks.values() {
                if task.agent_id() == agent_id && task.is_live() {
                    free.subtract(&task.resources.unallocated());
                }
            }
        }
        for offer in self
            .offers
            .values()
            .filter(|offer| offer.agent_id == agent_id)
        {
            free.subtract(&offer.resources.unallocated());
        }
        free
    }

    /// The framework and role with the smallest share among those that want it.
    fn choose(&self, agent_id: &str, free: &Resources) -> Option<(String, String)> {
        let mut best: Option<(f64, String, String)> = None;
        for (framework_id, framework) in &self.frameworks {
            if framework.stream.is_none() {
                continue;
            }
            for role in framework.roles() {
                let refused = framework.filters.iter().any(|filter| {
                    filter.agent_id == agent_id
                        && filter.role == role
                        && filter.resources.contains(free)
                });
                if refused || framework.suppressed.contains(&role) {
                    continue;
                }
                let share = self.share(framework_id);
                if best.as_ref().is_none_or(|(least, ..)| share < *least) {
                    best = Some((share, framework_id.clone(), role));
                }
            }
        }
        best.map(|(_, framework_id, role)| (framework_id, role))
    }

    /// The larger of its parts of the cluster's cpus and memory, offers included.
    fn share(&self, framework_id: &str) -> f64 {
        let mut has = Resources::default();
        if let Some(framework) = self.frameworks.get(framework_id) {
            for task in framework.tasks.values().filter(|task| task.is_live()) {
                has.add(&task.resources.unallocated());
            }
        }
        for offer in self
            .offers
            .values()
            .filter(|offer| offer.framework_id == framework_id)
        {
            has.add(&offer.resources.unallocated());
        }
        let part = |name: &str| {
            let whole: f64 = self
                .agents
                .values()
                .map(|agent| agent.total.total(name))
                .sum();
            if whole > 0.0 {
                has.total(name) / whole
            } else {
                0.0
            }
        };
        part("cpus").max(part("mem"))
    }

    fn offer(
        &mut self,
        agent_id: &str,
        framework_id: &str,
        role: &str,
        free: &Resources,
    ) -> Option<Offer> {
        let id = format!("{}-O{}", self.master.id, self.next_offer);
        self.next_offer += 1;
        let agent = self.agents.get(agent_id)?;
        let resources = free.in_offer_order().allocated(role);
        let executors = agent
            .executors
            .keys()
            .filter(|(owner, _)| owner == framework_id);
        let offer = Offer {
            id: OfferId { value: id.clone() },
            framework_id: FrameworkId {
                value: framework_id.to_owned(),
            },
            agent_id: AgentId {
                value: agent_id.to_owned(),
            },
            hostname: agent.info.hostname.clone(),
            resources: resources.list().to_vec(),
            executor_ids: executors
                .map(|(_, id)| ExecutorId { value: id.clone() })
                .collect(),
            attributes: agent.info.attributes.clone(),
            url: Some(Url {
                scheme: "http".to_owned(),
                address: Address {
                    hostname: Some(agent.info.hostname.clone()),
                    ip: Some(agent.ip.clone()),
                    port: agent.info.port(),
                },
                path: Some("/slave(1)".to_owned()),
                ..Default::default()
            }),
            allocation_info: Some(AllocationInfo {
                role: Some(role.to_owned()),
            }),
            domain: agent.info.domain.clone(),
            unavailability: None,
        };
        let offered = Offered {
            framework_id: framework_id.to_owned(),
            agent_id: agent_id.to_owned(),
            role: role.to_owned(),
            resources,
        };
        self.offers.insert(id, offered);
        Some(offer)
    }

    /// The framework does not want these offers; unknown ones are passed over, as they may just
    /// have been rescinded.
    pub(super) fn decline(
        &mut self,
        framework_id: &str,
        ids: &[OfferId],
        refuse_seconds: f64,
        now: Timestamp,
    ) {
        for id in ids {
            let mine = self
                .offers
                .get(&id.value)
                .is_some_and(|offer| offer.framework_id == framework_id);
            if let Some(offer) = mine.then(|| self.offers.remove(&id.value)).flatten() {
                let Offered {
                    agent_id,
                    role,
                    resources,
                    ..
                } = offer;
                self.refuse_resources(
                    framework_id,
                    agent_id,
                    role,
                    &resources,
                    refuse_seconds,
                    now,
                );
            }
        }
    }

    /// Keeps these resources from the framework for a while.
    pub(super) fn refuse_resources(
        &mut self,
        framework_id: &str,
        agent_id: String,
        role: String,
        resources: &Resources,
        refuse_seconds: f64,
        now: Timestamp,
    ) {
        /// What Mesos takes when it cannot use what a framework states.
        const DEFAULT_REFUSE_SECONDS: f64 = 5.0;
        let seconds = match refuse_seconds {
            stated if stated.is_finite() && stated >= 0.0 => stated,
            _ => DEFAULT_REFUSE_SECONDS,
        };
        if seconds == 0.0 || resources.is_empty() {
            return;
        }
        let until = now.plus(self.clocks.scaled(seconds));
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            let resources = resources.unallocated();
            framework.filters.push(Filter {
                agent_id,
                role,
                resources,
                until,
            });
        }
    }

    /// Takes back every offer on an agent.
    pub(super) fn rescind_offers(&mut self, agent_id: &str) {
        let gone: Vec<String> = self
            .offers
            .iter()
            .filter(|(_, offer)| offer.agent_id == agent_id)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(offer) = self.offers.remove(&id) {
                self.send(&offer.framework_id, events::rescind(&id));
            }
        }
    }

    pub(super) fn suppress(&mut self, framework_id: &str, roles: Vec<String>) {
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            let roles = if roles.is_empty() {
                framework.roles()
            } else {
                roles
            };
            framework.suppressed.extend(roles);
        }
    }

    pub(super) fn revive(&mut self, framework_id: &str, roles: &[String], now: Timestamp) {
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            let meant = |role: &String| roles.is_empty() || roles.contains(role);
            framework.suppressed.retain(|role| !meant(role));
            framework.filters.retain(|filter| !meant(&filter.role));
        }
        self.allocate(now);
    }
}
