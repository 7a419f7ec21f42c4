//! What an executor has told its agent and the agent has not confirmed. Pure.
//!
//! An update is kept until its ACKNOWLEDGED arrives, and goes into the SUBSCRIBE of every
//! reconnection; so does a task until one of its updates is acknowledged. A restarted agent learns
//! from that what happened while it was away.

use std::collections::HashSet;

use super::v1;
use super::v1::executor::call;

#[derive(Debug)]
struct Pending {
    status: v1::TaskStatus,
    /// The last subscription in which it was sent.
    sent_in: u64,
}

/// See the module. Subscriptions are counted from 1.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    launched: HashSet<String>,
    tasks: Vec<v1::TaskInfo>,
    updates: Vec<Pending>,
    subscription: u64,
}

impl Unacknowledged {
    /// Takes note of a LAUNCH. False when the task was launched before: an agent that restarts may
    /// send a LAUNCH again.
    pub fn launched(&mut self, task: &v1::TaskInfo) -> bool {
        let new = self.launched.insert(task.task_id.value.clone());
        if new {
            self.tasks.push(task.clone());
        }
        new
    }

    /// Queues an update that was not sent yet. Updates keep their order.
    pub fn add(&mut self, status: v1::TaskStatus) {
        self.updates.push(Pending { status, sent_in: 0 });
    }

    /// The agent has recorded an update.
    pub fn acknowledge(&mut self, task_id: &str, uuid: &[u8]) {
        self.tasks.retain(|task| task.task_id.value != task_id);
        self.updates
            .retain(|pending| pending.status.uuid.as_deref() != Some(uuid));
    }

    /// The body of a new SUBSCRIBE. What is in it counts as sent in this subscription.
    pub fn subscribe(&mut self) -> call::Subscribe {
        self.subscription += 1;
        for pending in &mut self.updates {
            pending.sent_in = self.subscription;
        }
        let update = |pending: &Pending| call::Update {
            status: pending.status.clone(),
        };
        call::Subscribe {
            unacknowledged_tasks: self.tasks.clone(),
            unacknowledged_updates: self.updates.iter().map(update).collect(),
        }
    }

    /// The oldest update that was not sent in this subscription; it counts as sent from here on. If
    /// sending fails the subscription is over, and the next one carries it.
    pub fn take_unsent(&mut self) -> Option<v1::TaskStatus> {
        let subscription = self.subscription;
        let pending = self
            .updates
            .iter_mut()
            .find(|pending| pending.sent_in != subscription)?;
        pending.sent_in = subscription;
        Some(pending.status.clone())
    }

    /// Whether the agent has confirmed every update.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uuid: u8) -> v1::TaskStatus {
        v1::TaskStatus {
            task_id: v1::TaskId { value: "t".into() },
            uuid: Some(vec![uuid]),
            ..Default::default()
        }
    }

    fn uuids(subscribe: &call::Subscribe) -> Vec<u8> {
        let uuid = |update: &call::Update| update.status.uuid.clone().unwrap_or_default();
        subscribe
            .unacknowledged_updates
            .iter()
            .flat_map(uuid)
            .collect()
    }

    #[test]
    fn updates_are_sent_once_a_subscription_until_acknowledged() {
        let mut unacknowledged = Unacknowledged::default();
        assert!(uuids(&unacknowledged.subscribe()).is_empty());
        unacknowledged.add(status(1));
        unacknowledged.add(status(2));
        assert_eq!(unacknowledged.take_unsent(), Some(status(1)));
        assert_eq!(unacknowledged.take_unsent(), Some(status(2)));
        assert_eq!(unacknowledged.take_unsent(), None);
        unacknowledged.acknowledge("t", &[1]);
        // The connection is lost: the rest goes with the new subscription, and only with that.
        assert_eq!(uuids(&unacknowledged.subscribe()), [2]);
        assert_eq!(unacknowledged.take_unsent(), None);
        assert!(!unacknowledged.is_empty());
        unacknowledged.acknowledge("t", &[2]);
        assert!(unacknowledged.is_empty());
    }

    #[test]
    fn a_task_is_told_until_its_first_acknowledgement_and_launched_once() {
        let task = v1::TaskInfo {
            task_id: v1::TaskId { value: "t".into() },
            ..Default::default()
        };
        let mut unacknowledged = Unacknowledged::default();
        assert!(unacknowledged.launched(&task));
        assert!(!unacknowledged.launched(&task));
        assert_eq!(unacknowledged.subscribe().unacknowledged_tasks.len(), 1);
        unacknowledged.acknowledge("t", &[1]);
        assert_eq!(unacknowledged.subscribe().unacknowledged_tasks.len(), 0);
        assert!(!unacknowledged.launched(&task));
    }
}
