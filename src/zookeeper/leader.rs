//! Which of several schedulers leads.
//!
//! One ephemeral node names the leader. Whoever finds none makes it and leads; the others watch it, pass on to the leader
//! what they are asked, and try again when it goes. The node goes when its session expires, so a leader that is
//! lost is replaced within a session timeout. One that ended on this very machine is replaced at once: nobody has to
//! wait for the session of a process that is not there any more.
//!
//! The node says who is *meant* to lead. It is not what keeps a former leader from writing, which may believe for a
//! while that it still leads: that is the store's fence ([`super::store`]).
//!
//! A leader whose session is lost while nobody else takes its place leads on in the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;
use zookeeper_client::{Acl, OneshotWatcher};

use super::{
    control::OwnedTask,
    document::{json, parse_bounded},
    operations::{Connection, Error, Op, Refusal},
    paths,
    session::Session,
};
use crate::process_identity::ProcessIdentity;

/// The format number of the leader's node written by this version.
pub const LEADER_FORMAT: u32 = 1;

/// The pause after an answer that was an error, or a race for the node that was lost.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a scheduler says of itself while it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// See [`LEADER_FORMAT`].
    pub format: u32,
    /// Names this run of the scheduler among all others.
    pub candidate: Uuid,
    /// Where its API is: `host:port`, the value of `--advertise`.
    pub api: String,
    /// Whether its records are files that no other scheduler sees (`--state-storage=local`).
    pub has_local_state: bool,
    /// The process, if it could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessIdentity>,
}

/// Who leads, as far as this scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is not known yet.
    Unknown,
    /// This one, confirmed in the session of this number. A leader that has lost its session is still told of as such,
    /// until a new session shows otherwise.
    Leading(u64),
    /// Another one.
    Following(Leader),
}

/// Stands for election for as long as it exists.
#[derive(Debug)]
pub struct Candidacy {
    standing: watch::Receiver<Standing>,
    _task: OwnedTask,
}

impl Candidacy {
    /// Begins to stand. `acl` is that of the node. Must be called within a tokio runtime.
    pub fn start(session: Session, own: Leader, acl: Vec<Acl>) -> Self {
        let (sender, standing) = watch::channel(Standing::Unknown);
        let candidate = Candidate { own, acl };
        let task = tokio::spawn(async move { candidate.run(session, sender).await });
        Self {
            standing,
            _task: OwnedTask(task),
        }
    }

    /// Who leads, and its changes. Quick changes may be seen as one.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

struct Candidate {
    own: Leader,
    acl: Vec<Acl>,
}

impl Candidate {
    async fn run(self, session: Session, standing: watch::Sender<Standing>) {
        let mut state = session.state();
        while let Some(connection) = session.next_connected(&mut state).await {
            match self.look(&connection).await {
                Ok(Some((now, watcher))) => {
                    standing.send_if_modified(|known| {
                        let is_new = *known != now;
                        *known = now;
                        is_new
                    });
                    tokio::select! {
                        _ = watcher.changed() => {}
                        closed = state.changed() => if closed.is_err() { return },
                    }
                }
                // Made or cleared away: the next look says what has become of it.
                Ok(None) => {}
                Err(error) => {
                    // Somebody else was faster, or the answer is uncertain.
                    let is_race = matches!(
                        error.refusal(),
                        Some(Refusal::NodeExists | Refusal::BadVersion | Refusal::NoNode)
                    );
                    if !is_race {
                        warn!(%error, "find out which scheduler leads");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Looks who leads. `None`: something was changed, so look again.
    async fn look(
        &self,
        connection: &Connection,
    ) -> Result<Option<(Standing, OneshotWatcher)>, Error> {
        let Some((data, stat, watcher)) = connection.watch_data(paths::LEADER).await? else {
            connection.transact(&[self.node()]).await?;
            return Ok(None);
        };
        let found = match parse_bounded::<Leader>(&data, LEADER_FORMAT) {
            Ok(found) => found,
            Err(fault) => {
                warn!(
                    path = paths::LEADER,
                    fault, "another scheduler leads, and its node cannot be read"
                );
                return Ok(Some((Standing::Unknown, watcher)));
            }
        };
        let is_own = found.candidate == self.own.candidate;
        if is_own && stat.ephemeral_owner == connection.session_id() {
            return Ok(Some((Standing::Leading(connection.generation), watcher)));
        }
        if !is_own && !self.has_ended(&found) {
            return Ok(Some((Standing::Following(found), watcher)));
        }
        if !is_own {
            info!(former = found.api, "the leader's process has ended");
        }
        // One transaction, so that nobody finds the place empty. Should somebody else have replaced the node since, that
        // one is deposed as soon as it has begun; the fence keeps the two apart.
        let version = Some(stat.version);
        let path = paths::LEADER.to_owned();
        let replace = [Op::Delete { path, version }, self.node()];
        connection.transact(&replace).await?;
        Ok(None)
    }

    fn has_ended(&self, other: &Leader) -> bool {
        match (&other.process, &self.own.process) {
            (Some(other), Some(own)) => other.has_ended(own),
            _ => false,
        }
    }

    fn node(&self) -> Op {
        Op::Create {
            path: paths::LEADER.to_owned(),
            data: json(&self.own),
            acl: self.acl.clone(),
            ephemeral: true,
        }
    }
}
