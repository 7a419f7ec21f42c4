//! Who is offered what. Pure.
//!
//! Every round offers all that is free on an agent, as one offer, to the role that has the least of
//! the cluster and neither suppressed offers nor refused what is there. Rounds come with the clock,
//! and at once when somebody subscribes, revives, registers or is torn down. What a task or an
//! executor frees waits for the next round, so that both parts come back in one offer.

use std::collections::BTreeMap;

use crate::local::fault_domain;
use crate::local::reservation;
use crate::local::resources::Resources;
use crate::mesos::v1::{
    Address, AgentId, ExecutorId, FrameworkId, Offer, OfferId, Url,
    framework_info::capability::Type as Capability, resource::AllocationInfo,
};
use crate::time::Timestamp;

use super::core::{Agent, Core, Filter, Offered};
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
            // What one role may not have another one may: what is reserved for it.
            loop {
                let free = self.free(&agent_id);
                let Some((framework_id, role, fitting)) = self.choose(&agent_id, &free) else {
                    break;
                };
                let Some(offer) = self.offer(&agent_id, &framework_id, &role, &fitting) else {
                    break;
                };
                made.entry(framework_id).or_default().push(offer);
            }
        }
        for (framework_id, offers) in made {
            self.send(&framework_id, events::offers(offers));
        }
        self.offer_inversely(now);
    }

    /// What nobody uses or was offered on a connected agent.
    fn free(&self, agent_id: &str) -> Resources {
        let Some(agent) = self
            .agents
            .get(agent_id)
            .filter(|agent| agent.link.is_some() && !self.registry.deactivated.contains(agent_id))
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

    /// The framework and role with the smallest share among those that want what they may have of it,
    /// and that.
    fn choose(&self, agent_id: &str, free: &Resources) -> Option<(String, String, Resources)> {
        let mut best: Option<(f64, String, String, Resources)> = None;
        let is_remote = self.is_remote(agent_id);
        for (framework_id, framework) in &self.frameworks {
            if framework.stream.is_none() || is_remote && !framework.has(Capability::RegionAware) {
                continue;
            }
            for role in framework.roles() {
                let fitting = reservation::allocatable_to(free, &role);
                if fitting.total("cpus") < MIN_CPUS && fitting.total("mem") < MIN_MEM_MIB {
                    continue;
                }
                let refused = framework.filters.iter().any(|filter| {
                    filter.agent_id == agent_id
                        && filter.role == role
                        && filter.resources.contains(&fitting)
                });
                if refused || framework.suppressed.contains(&role) {
                    continue;
                }
                let share = self.share(framework_id);
                if best.as_ref().is_none_or(|(least, ..)| share < *least) {
                    best = Some((share, framework_id.clone(), role, fitting));
                }
            }
        }
        best.map(|(_, framework_id, role, fitting)| (framework_id, role, fitting))
    }

    /// Whether an agent is in another region than the master. Only frameworks that say that they know of regions are offered those.
    fn is_remote(&self, agent_id: &str) -> bool {
        let agent = self.agents.get(agent_id);
        let domain = agent.and_then(|agent| agent.info.domain.as_ref());
        let own = fault_domain::region(self.master.domain.as_ref());
        fault_domain::region(domain).is_some_and(|region| Some(region) != own)
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

    /// Offers and inverse offers are counted together, as ids of both must differ.
    pub(super) fn new_offer_id(&mut self) -> String {
        let id = format!("{}-O{}", self.master.id, self.next_offer);
        self.next_offer += 1;
        id
    }

    fn offer(
        &mut self,
        agent_id: &str,
        framework_id: &str,
        role: &str,
        free: &Resources,
    ) -> Option<Offer> {
        let id = self.new_offer_id();
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
            url: Some(url(agent)),
            allocation_info: Some(AllocationInfo {
                role: Some(role.to_owned()),
            }),
            domain: agent.info.domain.clone(),
            unavailability: self.unavailability(agent),
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
        let seconds = usable_refusal(refuse_seconds);
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
        self.inverse.forget_filters_of(framework_id);
        self.allocate(now);
    }
}

/// Where an agent is to be found.
pub(super) fn url(agent: &Agent) -> Url {
    Url {
        scheme: "http".to_owned(),
        address: Address {
            hostname: Some(agent.info.hostname.clone()),
            ip: Some(agent.ip.clone()),
            port: agent.info.port(),
        },
        path: Some("/slave(1)".to_owned()),
        ..Default::default()
    }
}

/// How many seconds a refusal lasts when a framework states this.
pub(super) fn usable_refusal(stated: f64) -> f64 {
    /// What Mesos takes when it cannot use what a framework states.
    const DEFAULT_REFUSE_SECONDS: f64 = 5.0;
    if stated.is_finite() && stated >= 0.0 {
        stated
    } else {
        DEFAULT_REFUSE_SECONDS
    }
}
