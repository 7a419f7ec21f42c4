//! Schedulers that come, come back, go, and are removed. Pure.

use crate::local::http::Reply;
use crate::local::wire::{Proto, ToAgent};
use crate::mesos::v1::scheduler::{Call, call::Subscribe};
use crate::mesos::v1::{FrameworkId, FrameworkInfo};
use crate::time::Timestamp;

use super::core::{Core, Framework, Out};
use super::{events, validate};

impl Core {
    /// A scheduler subscribes on a new stream.
    ///
    /// Whoever subscribes last has the framework: an older stream gets an ERROR and ends. A
    /// framework that was removed is refused for good, so that what it ran cannot come back
    /// unnoticed.
    pub fn subscribe(
        &mut self,
        subscribe: Subscribe,
        stream: String,
        principal: Option<&str>,
        now: Timestamp,
    ) {
        let mut info = subscribe.framework_info;
        if info.principal.is_none() {
            info.principal = principal.map(str::to_owned);
        }
        if let Err(reason) = validate::framework(&info, &subscribe.suppressed_roles) {
            return self.refuse(stream, &reason);
        }
        let framework_id = match &info.id {
            Some(id) => id.value.clone(),
            None => self.new_framework_id(),
        };
        if self.completed.contains(&framework_id) {
            return self.refuse(stream, "Framework has been removed");
        }
        info.id = Some(FrameworkId {
            value: framework_id.clone(),
        });
        if let Err(reason) = self.check_unchanged(&framework_id, &info) {
            return self.refuse(stream, &reason);
        }
        self.drop_stream(&framework_id, Some("Framework failed over"));
        let heartbeat = self.clocks.heartbeat;
        let framework = self
            .frameworks
            .entry(framework_id.clone())
            .or_insert_with(|| Framework::new(info.clone(), now));
        framework.info = info.clone();
        framework.stream = Some(stream);
        framework.disconnected = None;
        framework.next_heartbeat = now.plus(heartbeat);
        framework.filters.clear();
        framework.suppressed = subscribe.suppressed_roles.into_iter().collect();
        let welcome = events::subscribed(&framework_id, heartbeat.as_secs_f64(), &self.master);
        self.send(&framework_id, welcome);
        self.send(&framework_id, events::heartbeat());
        // Agents send again what the former scheduler did not acknowledge.
        for agent_id in self.agents_of(&framework_id) {
            self.tell(
                &agent_id,
                ToAgent::FrameworkSubscribed {
                    framework: Proto(info.clone()),
                },
            );
        }
        self.allocate(now);
    }

    /// A call that may only be made by the framework's present stream.
    pub fn call(
        &mut self,
        call: Call,
        stream: Option<&str>,
        principal: Option<&str>,
        now: Timestamp,
    ) -> Reply {
        let framework_id = call
            .framework_id
            .as_ref()
            .map(|id| id.value.clone())
            .unwrap_or_default();
        let Some(framework) = self.frameworks.get(&framework_id) else {
            return Reply::bad_request("Framework cannot be found");
        };
        let stated = framework.info.principal.as_deref().unwrap_or_default();
        if let Some(known) = principal.filter(|known| *known != stated) {
            return Reply::bad_request(format!(
                "Authenticated principal '{known}' does not match principal '{stated}' set in `FrameworkInfo`"
            ));
        }
        let Some(current) = &framework.stream else {
            return Reply::forbidden("Framework is not subscribed");
        };
        let Some(stream) = stream else {
            return Reply::bad_request(
                "All non-subscribe calls should include the 'Mesos-Stream-Id' header",
            );
        };
        if stream != current {
            return Reply::bad_request(format!(
                "The stream ID '{stream}' included in this request didn't match the stream ID currently \
                 associated with framework ID {framework_id}"
            ));
        }
        self.dispatch(&framework_id, call, now)
    }

    /// A stream's reader is gone.
    pub fn stream_closed(&mut self, stream: &str, now: Timestamp) {
        let owner = self
            .frameworks
            .iter()
            .find(|(_, one)| one.stream.as_deref() == Some(stream));
        let Some(framework_id) = owner.map(|(id, _)| id.clone()) else {
            return;
        };
        self.drop_stream(&framework_id, None);
        if let Some(framework) = self.frameworks.get_mut(&framework_id) {
            framework.disconnected = Some(now);
        }
        self.remove_abandoned_frameworks(now);
        self.allocate(now);
    }

    /// The framework ends for good, with all that it runs.
    pub(super) fn remove_framework(&mut self, framework_id: &str) {
        self.drop_stream(framework_id, None);
        for agent_id in self.agents_of(framework_id) {
            let framework_id = framework_id.to_owned();
            self.tell(&agent_id, ToAgent::ShutdownFramework { framework_id });
        }
        for agent in self.agents.values_mut() {
            agent
                .executors
                .retain(|(owner, _), _| owner != framework_id);
        }
        self.operations
            .retain(|(owner, _), _| owner != framework_id);
        self.frameworks.remove(framework_id);
        self.complete(framework_id);
    }

    /// Removes frameworks whose scheduler stayed away for longer than they allow.
    pub(super) fn remove_abandoned_frameworks(&mut self, now: Timestamp) {
        let abandoned = |framework: &Framework| {
            let patience = self.clocks.scaled(framework.info.failover_timeout());
            framework
                .disconnected
                .is_some_and(|since| now >= since.plus(patience))
        };
        let gone: Vec<String> = self
            .frameworks
            .iter()
            .filter(|(_, framework)| abandoned(framework))
            .map(|(id, _)| id.clone())
            .collect();
        for framework_id in gone {
            tracing::info!(%framework_id, "framework removed: its failover timeout has passed");
            self.remove_framework(&framework_id);
        }
    }

    pub(super) fn send_heartbeats(&mut self, now: Timestamp) {
        let heartbeat = self.clocks.heartbeat;
        let mut due = Vec::new();
        for (id, framework) in &mut self.frameworks {
            if framework.stream.is_some() && now >= framework.next_heartbeat {
                framework.next_heartbeat = now.plus(heartbeat);
                due.push(id.clone());
            }
        }
        for framework_id in due {
            self.send(&framework_id, events::heartbeat());
        }
    }

    fn refuse(&mut self, stream: String, reason: &str) {
        let event = Box::new(events::error(reason));
        self.out.push(Out::Event {
            stream: stream.clone(),
            event,
        });
        self.out.push(Out::CloseStream(stream));
    }

    /// What a framework may not change when it comes back.
    fn check_unchanged(&self, framework_id: &str, info: &FrameworkInfo) -> Result<(), String> {
        let Some(known) = self.frameworks.get(framework_id) else {
            return Ok(());
        };
        if known.info.principal != info.principal {
            return Err("Changing framework's principal is not allowed.".to_owned());
        }
        Ok(())
    }

    /// Takes the framework's stream away, and with it the offers that were made on it.
    fn drop_stream(&mut self, framework_id: &str, reason: Option<&str>) {
        let Some(framework) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let Some(stream) = framework.stream.take() else {
            return;
        };
        self.offers
            .retain(|_, offer| offer.framework_id != framework_id);
        self.inverse.forget_framework(framework_id);
        if let Some(reason) = reason {
            let event = Box::new(events::error(reason));
            self.out.push(Out::Event {
                stream: stream.clone(),
                event,
            });
        }
        self.out.push(Out::CloseStream(stream));
    }

    fn new_framework_id(&mut self) -> String {
        let id = format!("{}-{:04}", self.master.id, self.next_framework);
        self.next_framework += 1;
        id
    }

    /// The agents that know of the framework.
    fn agents_of(&self, framework_id: &str) -> Vec<String> {
        let runs = |agent: &super::core::Agent| {
            agent
                .executors
                .keys()
                .any(|(owner, _)| owner == framework_id)
        };
        let mut ids: Vec<String> = self
            .agents
            .iter()
            .filter(|(_, agent)| runs(agent))
            .map(|(id, _)| id.clone())
            .collect();
        if let Some(framework) = self.frameworks.get(framework_id) {
            // An executor may be gone while an update of its task is not acknowledged.
            ids.extend(
                framework
                    .tasks
                    .values()
                    .map(|task| task.agent_id().to_owned()),
            );
        }
        let mine = self
            .operations
            .iter()
            .filter(|((owner, _), _)| owner == framework_id);
        ids.extend(mine.map(|(_, known)| known.agent_id.clone()));
        ids.sort();
        ids.dedup();
        ids
    }
}
