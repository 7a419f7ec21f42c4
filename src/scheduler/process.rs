//! The scheduler's process: listen -> ZooKeeper -> stand for election -> lead or follow, again and again.
//!
//! Any number of schedulers may run with the same `--zk-url`. One leads; the others pass on to it what they are asked,
//! and one of them takes over when it is lost. The API listens first, so that a page can say what is being waited for.
//!
//! ```text
//!               another one has the node                     the node is gone
//! standing  ------------------------------>  following  -------------------------->  standing
//!     |  this one has it                                                                ^
//!     +-----> leading (a term, see `start`)  -- another one has taken over -------------+
//! ```
//!
//! A leader that loses its session with ZooKeeper leads on: nobody else does until a new session says so, and what it
//! wants to write waits. If somebody else did meanwhile, the fence or the new session tells, and it follows.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    execute::Ending,
    start::{self, Office, SESSION_TIMEOUT},
};
use crate::{
    backup::store::Store,
    cli::settings::{Settings, StateStorage},
    cluster::spec,
    http::{
        executor_binary::ExecutorBinary,
        leader::ToLeader,
        metrics::Metrics,
        port::{
            ApiRequest, BackupAccess, MAX_PATIENT_READERS, MAX_WAITING_REQUESTS, SchedulerPort,
            Views,
        },
        router, serve,
    },
    process_identity::ProcessIdentity,
    zookeeper::{
        leader::{Candidacy, LEADER_FORMAT, Leader, Standing},
        seal::Key,
        session::{Session, SessionConfig},
    },
};

/// How long the first connection to ZooKeeper may take before the scheduler says what it waits for.
const ZOOKEEPER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a scheduler that must be alone waits for another one's node to go: the session of one that was lost with its
/// machine, and as much again.
const ALONE_PATIENCE: Duration = Duration::from_secs(2 * SESSION_TIMEOUT.as_secs());

/// Between two terms of the same scheduler, so that whatever ended one does not end the next at once.
const BETWEEN_TERMS: Duration = Duration::from_secs(1);

/// Runs a scheduler until `stop` is cancelled.
///
/// # Errors
/// What kept it from starting or from going on. Tasks are not touched by its end.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    let listener = TcpListener::bind(("0.0.0.0", settings.port))
        .await
        .with_context(|| format!("listen on port {} (--port)", settings.port))?;
    let executor = serve_own_binary(&settings).await?;
    let metrics = Arc::new(Metrics::register(Default::default()));
    let (views, seen) = watch::channel(Views::default());
    let (requests, mut api) = mpsc::channel(MAX_WAITING_REQUESTS);
    let to_leader = ToLeader::new(settings.advertise.clone());
    let port = SchedulerPort {
        requests,
        views: seen,
        patient: Arc::new(Semaphore::new(MAX_PATIENT_READERS)),
        metrics: metrics.clone(),
        executor: executor.clone(),
        administrator: Arc::new(settings.admin.password.clone()),
        rules: Arc::new(spec::Rules {
            admin_user: settings.admin.username.clone(),
            packages: settings.packages.clone(),
        }),
        backups: open_store(&settings)?,
        leader: to_leader.clone(),
    };
    let backups = port.backups.clone();
    let http = tokio::spawn(serve(listener, router(port), stop.clone()));
    info!(port = settings.port, advertise = %settings.advertise, "the API listens");

    let session = connect_zookeeper(&settings, &stop).await?;
    let key = Key::from_file_content(settings.scheduler_key.expose())
        .map_err(|fault| anyhow!("use the key of --scheduler-keypath: {fault}"))?;
    let acl = start::acls(&settings).state;
    let candidacy = Candidacy::start(session.clone(), candidate(&settings), acl);
    let office = Office {
        settings: &settings,
        key: &key,
        session: &session,
        executor: executor.as_deref(),
        metrics: &metrics,
        views: &views,
        backups: backups.as_ref(),
    };
    let mut standing = candidacy.standing();
    let result = serve_terms(&office, &mut standing, &to_leader, &mut api, &stop).await;
    stop.cancel();
    // The server finishes the requests under way; it has a deadline of its own.
    let _ = http.await;
    // With the session goes the leader's node, and another scheduler leads at once.
    drop(candidacy);
    session.close(Duration::from_secs(2)).await;
    result
}

/// The store was opened before, to check the settings; its files may have changed since.
fn open_store(settings: &Settings) -> anyhow::Result<Option<Arc<BackupAccess>>> {
    let Some(settings) = settings.backup_store.clone() else {
        return Ok(None);
    };
    let store = Store::open(&settings).context("open the backup store (--backup-store)")?;
    Ok(Some(Arc::new(BackupAccess { settings, store })))
}

/// Leads and follows, as it comes, until `stop` is cancelled.
async fn serve_terms(
    office: &Office<'_>,
    standing: &mut watch::Receiver<Standing>,
    to_leader: &ToLeader,
    api: &mut mpsc::Receiver<ApiRequest>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let now = standing.borrow_and_update().clone();
        office
            .metrics
            .leading
            .set(i64::from(matches!(now, Standing::Leading(_))));
        match now {
            Standing::Unknown => {}
            Standing::Following(leader) => {
                info!(
                    leader = leader.api,
                    "another scheduler leads; this one follows"
                );
                to_leader.follow(Some(leader.api.clone()));
                if is_to_be_alone(office.settings, &leader) {
                    wait_to_be_alone(office.settings, &leader, standing, stop).await?;
                    // It has seen the change that ended it: to wait for the next one would be to lead without doing anything.
                    continue;
                }
            }
            Standing::Leading(generation) => {
                to_leader.follow(None);
                info!("this scheduler leads");
                // What was asked in a former term was answered with "perhaps" long ago, and must not be done now.
                while api.try_recv().is_ok() {}
                let ended = one_term(office, generation, standing, api, stop).await;
                office.views.send_replace(Views::default());
                office.metrics.framework_registered.set(0);
                match ended {
                    Ok(()) => return Ok(()),
                    Err(Ending::Fatal(sentence)) => bail!(sentence),
                    Err(Ending::TermOver(sentence)) => {
                        warn!("{sentence}");
                        stop.run_until_cancelled(tokio::time::sleep(BETWEEN_TERMS))
                            .await;
                        continue;
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            // The candidacy stands as long as this process.
            _ = standing.changed() => {}
        }
    }
    Ok(())
}

/// Leads until `stop`, until another scheduler is found to lead, or until the term is over for another reason.
async fn one_term(
    office: &Office<'_>,
    generation: u64,
    standing: &mut watch::Receiver<Standing>,
    api: &mut mpsc::Receiver<ApiRequest>,
    stop: &CancellationToken,
) -> Result<(), Ending> {
    let still_leading = |now: &Standing| matches!(now, Standing::Leading(_));
    tokio::select! {
        ended = start::lead(office, api, stop.clone()) => ended,
        now = standing.wait_for(|now| !still_leading(now)) => {
            let leader = match now.as_deref() {
                Ok(Standing::Following(leader)) => leader.api.clone(),
                _ => "another scheduler".to_owned(),
            };
            Err(Ending::TermOver(format!("{leader} leads now; this scheduler has led since its ZooKeeper session {generation} and follows")))
        }
    }
}

/// Files are seen by one scheduler only, so one that keeps its state in files must be the only one.
fn is_to_be_alone(settings: &Settings, leader: &Leader) -> bool {
    settings.state_storage == StateStorage::Local || leader.has_local_state
}

/// Until the other one does not lead any more, or `stop`.
///
/// # Errors
/// It leads on.
async fn wait_to_be_alone(
    settings: &Settings,
    leader: &Leader,
    standing: &mut watch::Receiver<Standing>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    warn!(
        leader = leader.api,
        seconds = ALONE_PATIENCE.as_secs(),
        "state in local files belongs to one scheduler; waiting for the session of the other one to end"
    );
    let gone = standing.wait_for(|now| !matches!(now, Standing::Following(_)));
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        _ = gone => Ok(()),
        () = tokio::time::sleep(ALONE_PATIENCE) => {
            let whose = if settings.state_storage == StateStorage::Local { "this one keeps" } else { "that one keeps" };
            bail!(
                "another scheduler, {}, leads below {} and {whose} its state in local files (--state-storage=local), \
                 which no other scheduler can see: end one of the two, or let all keep their state in ZooKeeper",
                leader.api,
                settings.zk_url,
            )
        }
    }
}

fn candidate(settings: &Settings) -> Leader {
    let process = ProcessIdentity::own();
    if let Err(error) = &process {
        warn!(%error, "find out which process this is; after a crash the next one here waits for its ZooKeeper session to end");
    }
    Leader {
        format: LEADER_FORMAT,
        candidate: Uuid::new_v4(),
        api: settings.advertise.clone(),
        has_local_state: settings.state_storage == StateStorage::Local,
        process: process.ok(),
    }
}

/// The binary that agents fetch, unless they are told another place.
async fn serve_own_binary(settings: &Settings) -> anyhow::Result<Option<Arc<ExecutorBinary>>> {
    if settings.executor_uri.is_some() || settings.executor_cmd.is_some() {
        return Ok(None);
    }
    let binary = tokio::task::spawn_blocking(ExecutorBinary::of_this_process)
        .await
        .context("read this program's own file")?
        .context("read this program's own file, which agents are to fetch")?;
    Ok(Some(Arc::new(binary)))
}

async fn connect_zookeeper(
    settings: &Settings,
    stop: &CancellationToken,
) -> anyhow::Result<Session> {
    let session = Session::connect(SessionConfig {
        url: settings.zk_url.clone(),
        identities: settings
            .executor_zk
            .iter()
            .map(|id| id.credentials.clone())
            .collect(),
        timeout: SESSION_TIMEOUT,
        root_acl: Some(start::acls(settings).root),
    });
    loop {
        let connected = stop
            .run_until_cancelled(session.connected(ZOOKEEPER_PATIENCE))
            .await;
        match connected {
            None => return Err(anyhow!("stopped before ZooKeeper was reached")),
            Some(Ok(_)) => return Ok(session),
            Some(Err(error)) => {
                warn!(zookeeper = %settings.zk_url, %error, "ZooKeeper is not reached yet; trying on");
            }
        }
    }
}
