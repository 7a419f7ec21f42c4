//! The only loop: receive -> apply -> plan -> execute, until nothing is left to do; then wait.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{self, Instant},
};
use tracing::{debug, error, info, warn};

use super::{
    ExecutorError,
    action::Action,
    event::Event,
    execute::{Hands, Happened},
    lifecycle::{State, plan},
};
use crate::{
    mesos::executor::ExecutorEvent,
    time::Timestamp,
    zookeeper::{
        control::{GoalSeen, GoalState, GoalWatch},
        session::SessionState,
    },
};

/// How often planning may follow planning before the loop takes a breath. A plan that asks for ever more is
/// an error of the program; it must not burn the agent's cpu.
const PLANS_IN_A_ROW: usize = 100;

/// Who sleeps for so long beyond the time has not heard what arrived meanwhile. On a busy machine a wake-up may be
/// late by tenths of a second.
const OVERSLEPT: Duration = Duration::from_millis(500);

/// A clock that never goes back, in the form that the lifecycle takes.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    begun: Instant,
}

impl Clock {
    /// Starts the clock at the machine's time.
    pub fn start() -> Self {
        Self {
            wall: Timestamp::now(),
            begun: Instant::now(),
        }
    }

    /// The time.
    pub fn now(self) -> Timestamp {
        self.wall.plus(self.begun.elapsed())
    }

    fn instant(self, at: Timestamp) -> Instant {
        self.begun + at.since(self.wall)
    }
}

/// Everything that the loop listens to.
pub struct Driver {
    /// The facts.
    pub state: State,
    /// What performs actions.
    pub hands: Hands,
    /// What comes back from it.
    pub happened: mpsc::Receiver<Happened>,
    /// What the agent says.
    pub mesos: mpsc::Receiver<ExecutorEvent>,
    /// What the scheduler wants.
    pub goals: GoalWatch,
    /// How the ZooKeeper session is.
    pub contact: watch::Receiver<SessionState>,
    /// The time.
    pub clock: Clock,
    /// How long an end may take where Mesos does not say.
    pub grace: Grace,
}

/// How long an end may take.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// After a KILL that does not say: the task's kill policy.
    pub kill: Duration,
    /// After a SHUTDOWN, or a signal: the agent's grace period.
    pub shutdown: Duration,
}

impl Driver {
    /// Runs until the task has ended.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn run(&mut self) -> Result<(), ExecutorError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(ExecutorError::Signals)?;
        while let Some(wake_at) = self.carry_out() {
            self.receive(&mut terminate, wake_at).await;
        }
        if !self.hands.last_update_acknowledged().await {
            warn!("the agent has not acknowledged the last update");
        }
        Ok(())
    }

    /// Plans and executes until a plan has nothing to do; returns when to think again, or `None` when the
    /// executor is to end.
    fn carry_out(&mut self) -> Option<Option<Timestamp>> {
        for _ in 0..PLANS_IN_A_ROW {
            let now = self.clock.now();
            let plan = plan(&self.state, now);
            if plan.actions.is_empty() {
                debug!(reason = plan.reason, "nothing to do");
                return Some(plan.wake_at);
            }
            for action in plan.actions {
                let is_exit = action == Action::Exit;
                self.state.begin(&action, now);
                self.hands.execute(action);
                if is_exit {
                    return None;
                }
            }
            self.hands.give_up_all_but(self.state.step_under_way());
        }
        error!("the plan does not come to rest");
        Some(Some(self.clock.now().plus(Duration::from_secs(1))))
    }

    /// Waits for one fact, or for the time.
    async fn receive(&mut self, terminate: &mut Signal, wake_at: Option<Timestamp>) {
        let wake = async {
            match wake_at {
                Some(at) => time::sleep_until(self.clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            // The hands hold a sender, so this never ends.
            Some(happened) = self.happened.recv() => self.take(happened),
            seen = self.goals.next() => goal(seen),
            Ok(()) = self.contact.changed() => Some(self.touch()),
            Some(event) = self.mesos.recv() => told(event, self.grace),
            Some(()) = terminate.recv() => Some(Event::Kill {
                grace: self.grace.shutdown,
                may_hold: false,
            }),
            () = wake => None,
        };
        let now = self.clock.now();
        if let Some(late) = wake_at
            .map(|at| now.since(at))
            .filter(|late| *late > OVERSLEPT)
        {
            warn!(?late, "the executor did not run for a while");
            self.state.apply(Event::Overslept, now);
        }
        if let Some(event) = event {
            debug!(?event, "event");
            self.state.apply(event, self.clock.now());
        }
    }

    fn touch(&mut self) -> Event {
        let in_touch = match *self.contact.borrow_and_update() {
            SessionState::Connected(_) => true,
            SessionState::Suspended | SessionState::Lost => false,
        };
        info!(in_touch, "touch with ZooKeeper");
        Event::Contact { in_touch }
    }

    fn take(&mut self, happened: Happened) -> Option<Event> {
        let Happened { event, brought } = happened;
        let is_wanted = match &event {
            Event::Done { number, .. } => self.state.step_under_way() == Some(*number),
            _ => true,
        };
        if is_wanted {
            self.hands.take(brought);
        }
        Some(event)
    }
}

fn goal(seen: GoalSeen) -> Option<Event> {
    match seen.goal {
        GoalState::Present(goal) => {
            info!(epoch = goal.epoch.0, phase = ?goal.phase, "goal");
            Some(Event::Goal(goal))
        }
        GoalState::Absent => None,
        GoalState::Unreadable(fault) => {
            error!(
                fault,
                "the goal cannot be read; what was obeyed before goes on"
            );
            None
        }
    }
}

/// What the agent's event means for the task.
fn told(event: ExecutorEvent, grace: Grace) -> Option<Event> {
    match event {
        ExecutorEvent::Kill {
            task_id,
            grace_period,
        } => {
            info!(task_id, ?grace_period, "the agent kills the task");
            Some(Event::Kill {
                grace: grace_period.unwrap_or(grace.kill),
                may_hold: true,
            })
        }
        ExecutorEvent::Shutdown => {
            info!("the agent shuts the executor down");
            Some(Event::Kill {
                grace: grace.shutdown,
                may_hold: false,
            })
        }
        ExecutorEvent::Launch(task) => {
            // One executor runs one task; Mesos sends no second one unless the scheduler asks for it.
            error!(
                task = task.task_id.value,
                "a second task was launched here, and is ignored"
            );
            None
        }
        ExecutorEvent::Error { message } => {
            error!(message, "the agent complains");
            None
        }
        ExecutorEvent::Message(_)
        | ExecutorEvent::Subscribed(_)
        | ExecutorEvent::Acknowledged { .. }
        | ExecutorEvent::Disconnected { .. } => None,
    }
}
