//! What the steps of a switchover do to the servers: [`Step::Approach`](super::action::Step::Approach) ...
//! [`Step::Yield`](super::action::Step::Yield).
//!
//! The old master asks the target itself whether it has everything, over the network: the scheduler need not carry a
//! position from one to the other while clients wait.

use std::time::Duration;

use tokio::time::Instant;

use super::event::Outcome;
use crate::{
    cluster::{control::Address, gtid::Position},
    mysql::{self, Credentials, Server, remote::Onlooker},
};

/// What goes wrong with handing over. Each text is a part of a sentence about the master.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The target cannot be asked, or does not get there in time.
    #[error("the target could not be seen to have all that the master has within {waited:?}")]
    Target {
        /// How long was waited.
        waited: Duration,
        /// Why.
        #[source]
        source: mysql::Error,
    },
    /// The server could not be closed.
    #[error("it could not be closed for writes: a statement or a transaction holds it up")]
    Close(#[source] mysql::Error),
    /// A statement that was given up has closed it again.
    #[error("it was closed for writes again when it was opened")]
    StillClosed,
    /// A deposed master that is to stay alive is not known to be closed.
    #[error("it is not known to be closed for writes")]
    NotClosed,
    /// The server did not do what it was asked for.
    #[error(transparent)]
    Server(#[from] mysql::Error),
}

/// How long the target may need for what the server has executed by then, when the server is closed: clients wait for as long.
/// One that applies as fast as the master writes needs milliseconds.
const NEAR: Duration = Duration::from_millis(25);

/// The same for a target that has not got that near in four fifths of its time.
const NEAR_ENOUGH: Duration = Duration::from_millis(200);

/// How long each group of commits is held back in each fifth of the time that a target has to get near: clients that write faster
/// than it applies are slowed down before they are stopped.
const COMMIT_DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
];

/// Waits until the target executes within `NEAR`, or at last within `NEAR_ENOUGH`, all that the server has executed.
///
/// Commits may be held back when this ends, until [`reopen`] or [`yield_place`].
pub async fn approach(
    server: &Server,
    target: &Address,
    admin: &Credentials,
    within: Duration,
) -> Result<(), HandoverError> {
    let begun = Instant::now();
    let deadline = begun + within;
    let failed = |source| HandoverError::Target {
        waited: within,
        source,
    };
    let connect = || Onlooker::connect(target, server.flavour(), admin, deadline);
    let mut onlooker = connect().await.map_err(failed)?;
    let mut delayed = 0;
    loop {
        let fifth = fifth_of(begun.elapsed(), within);
        let near = match fifth {
            4.. => NEAR_ENOUGH,
            _ => NEAR,
        };
        // Each time what there is by now: less and less is missing, if the target is fast enough.
        let position = server.executed().await?;
        let source = match onlooker
            .wait_executed(&position, Instant::now() + near)
            .await
        {
            Ok(()) => return Ok(()),
            Err(source) if Instant::now() < deadline => source,
            Err(source) => return Err(failed(source)),
        };
        match source {
            mysql::Error::NotThere { .. } if fifth > delayed => {
                delayed = fifth;
                server.delay_commits(COMMIT_DELAYS[fifth]).await?;
            }
            mysql::Error::NotThere { .. } => {}
            // It may answer yet. Clients need not wait for a server that does not.
            mysql::Error::TimedOut { .. } => {
                server.end_commit_delay().await?;
                delayed = 0;
                onlooker = connect().await.map_err(failed)?;
            }
            source => return Err(failed(source)),
        }
    }
}

/// In which fifth of its time something is that has taken so long: 0 to 4.
fn fifth_of(elapsed: Duration, within: Duration) -> usize {
    let fifths = elapsed.as_millis() * 5 / within.as_millis().max(1);
    fifths.min(4) as usize
}

/// Closes the server for writes and waits until the target has all that it has.
///
/// The target is asked before, so that one that does not answer costs no pause. All of it ends within `closed_for`, except
/// that the statement that closes is waited for until the server says what came of it: one that was given up
/// could close the server later.
pub async fn close(
    server: &Server,
    target: &Address,
    admin: &Credentials,
    closed_for: Duration,
) -> Result<Outcome, HandoverError> {
    let deadline = Instant::now() + closed_for;
    let failed = |source| HandoverError::Target {
        waited: closed_for,
        source,
    };
    let flavour = server.flavour();
    let mut onlooker = Onlooker::connect(target, flavour, admin, deadline)
        .await
        .map_err(failed)?;
    let near = server.executed().await?;
    onlooker
        .wait_executed(&near, deadline)
        .await
        .map_err(failed)?;
    let begun = Instant::now();
    server
        .close_for_handover()
        .await
        .map_err(HandoverError::Close)?;
    // Nobody writes any more, and no commit is under way: this is all that there is.
    let position = server.executed().await?;
    onlooker
        .wait_executed(&position, deadline)
        .await
        .map_err(failed)?;
    let took = begun.elapsed();
    Ok(Outcome::Closed { position, took })
}

/// Lets clients write again, as fast as they can, and looks whether they can.
pub async fn reopen(server: &Server) -> Result<(), HandoverError> {
    server.open_for_writes().await?;
    server.end_commit_delay().await?;
    match server.is_read_only().await? {
        true => Err(HandoverError::StillClosed),
        false => Ok(()),
    }
}

/// Makes a closed master of an earlier epoch a voter like any other, and reads what it holds.
///
/// That it waits for acknowledgements is switched off when it follows ([`follow_as_replica`]), which takes up to a second: the
/// election waits for what is read here.
pub async fn yield_place(
    server: &Server,
    position: Option<Position>,
) -> Result<Outcome, HandoverError> {
    let position = position.ok_or(HandoverError::NotClosed)?;
    server.stands_still_at(&position).await?;
    let executed = server.executed().await?;
    let position = server.held().await?;
    server.end_commit_delay().await?;
    Ok(Outcome::Held { position, executed })
}

/// Has the server wait for no acknowledgements, before it follows: as a replica it would wait for those of what it applies.
///
/// Only one that has yielded its place still does. Nobody has been able to write on it since it was seen that no commit waits,
/// so none is released by it as if it were acknowledged. On all others it is off.
pub async fn follow_as_replica(server: &Server) -> Result<(), mysql::Error> {
    server.prepare_source(0).await
}
