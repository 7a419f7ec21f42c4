//! An agent that died and is back: its executors went on and subscribe again. Pure.
//!
//! The master hears of the agent only when all executors are back or their time is over, so that
//! what it is told is what runs.

use crate::local::duration;
use crate::mesos::v1::task_status::Reason;
use crate::time::Timestamp;

use super::core::{Core, Executor, Out, Phase, Record};

impl Core {
    /// Takes up what a former run stored. `alive` says whether the executor's process still runs.
    pub fn recover(&mut self, records: Vec<(Record, bool)>, now: Timestamp) {
        let deadline = now.plus(self.clocks.reregistration);
        let mut ended = Vec::new();
        for (record, alive) in records {
            let key = record.key();
            let container_id = record.container_id.clone();
            // Without a container it only holds statuses of tasks that never ran.
            let phase = match (alive, container_id.is_empty()) {
                (_, true) => Phase::Ended,
                (true, false) => Phase::Registering(deadline),
                (false, false) => Phase::Killed,
            };
            if phase == Phase::Killed {
                ended.push(container_id);
            }
            let executor = Executor {
                record,
                phase,
                stream: None,
                reason: None,
                discard: false,
            };
            self.executors.insert(key, executor);
        }
        for container_id in ended {
            // Nobody saw how it ended; Mesos reports -1 then.
            self.container_ended(&container_id, -1, None, now);
        }
        let waiting = self
            .executors
            .values()
            .any(|one| matches!(one.phase, Phase::Registering(_)));
        self.recovering = waiting.then_some(deadline);
    }

    pub(super) fn finish_recovery_if_complete(&mut self) {
        let waiting = self
            .executors
            .values()
            .any(|one| matches!(one.phase, Phase::Registering(_)));
        if !waiting {
            self.recovering = None;
        }
    }

    pub(super) fn finish_recovery_if_due(&mut self, now: Timestamp) {
        if self.recovering.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.recovering = None;
        let limit = duration::text(self.clocks.reregistration);
        let mut late = Vec::new();
        for executor in self.executors.values_mut() {
            if matches!(executor.phase, Phase::Registering(_)) {
                let message = format!("Executor did not reregister within {limit}");
                executor.reason = Some((Reason::ExecutorReregistrationTimeout, message));
                executor.phase = Phase::Killed;
                late.push(executor.record.container_id.clone());
            }
        }
        for container_id in late {
            self.out.push(Out::Kill { container_id });
        }
    }
}
