//! A leader's term: load -> Mesos -> loop, and the way back down.
//!
//! Mesos comes last: no offer arrives before everything that is stored has been read.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    door::door,
    driver::Driver,
    event::{Event, StoredCluster, StoredRetained},
    execute::{Ending, Hands, Input},
    placement::{SPREAD_PATIENCE, SpreadBy},
    requested::Requested,
    retained::Keeping,
    schedule::BackupPolicy,
    state::{Policy, State},
    sweep::{self, Sweeper},
    wire::{self, TaskTemplate},
};
use crate::{
    cli::settings::{Settings, Spread, StateStorage},
    cluster::backup::ArchiveOrder,
    http::{
        executor_binary::ExecutorBinary,
        metrics::Metrics,
        port::{ApiRequest, BackupAccess, Views},
    },
    mesos::{
        scheduler::{self as mesos, Credential, SchedulerConfig, SchedulerEvent, Timeouts},
        v1,
    },
    rules::Rules,
    zookeeper::{
        acl::Acls,
        control::{ReportEvent, ReportWatch},
        operations as zookeeper, paths,
        seal::{self, Key},
        session::Session,
        store::{self, Store, StoreError},
    },
};

/// The ZooKeeper session timeout that scheduler and executors ask for. It bounds how long the loss of
/// a host goes unnoticed; much below it, a long pause of a busy host would look like its loss.
/// ZooKeeper grants at least two of its ticks, which are 2 s by default.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How many facts may wait for the loop. Their senders wait when it is full.
const MAX_WAITING_INPUTS: usize = 1024;

/// What stays the same from one term to the next.
pub(super) struct Office<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The key of sealed passwords.
    pub key: &'a Key,
    /// The session with ZooKeeper.
    pub session: &'a Session,
    /// The binary that agents fetch from here.
    pub executor: Option<&'a ExecutorBinary>,
    /// The counters.
    pub metrics: &'a Arc<Metrics>,
    /// Where the API reads.
    pub views: &'a watch::Sender<Views>,
    /// The store of backups, if there is one.
    pub backups: Option<&'a Arc<BackupAccess>>,
}

/// Leads: reads what is stored, registers with Mesos, and looks after the clusters until `stop` is cancelled or the term
/// is over. `api` is where requests come from.
///
/// # Errors
/// Why the term is over.
pub(super) async fn lead(
    office: &Office<'_>,
    api: &mut mpsc::Receiver<ApiRequest>,
    stop: CancellationToken,
) -> Result<(), Ending> {
    let Office {
        settings,
        key,
        session,
        executor,
        metrics,
        views,
        backups,
    } = *office;
    let store = open_store(settings, session).await.map_err(ending)?;
    let store = Arc::new(store);
    let framework = store.framework().await;
    let framework = framework.context("read the framework id").map_err(ending)?;
    let (clusters, unusable) = load(&store, key).await.map_err(ending)?;
    let keeping = load_retained(&store, key).await.map_err(ending)?;
    info!(
        kept = keeping.clusters.len(),
        clusters = clusters.len(),
        unusable = unusable.len(),
        "state loaded"
    );

    // What is started for this term ends with it.
    let term = stop.child_token();
    let _end_of_term = term.clone().drop_guard();
    let mut feeds = JoinSet::new();
    let (inputs, receiver) = mpsc::channel(MAX_WAITING_INPUTS);
    let reports = ReportWatch::start(session.clone());
    feeds.spawn(feed_reports(reports, inputs.clone()));
    let framework_id = framework
        .as_ref()
        .map(|(record, _)| record.framework_id.clone());
    let config = mesos_config(settings);
    let (handle, events) = mesos::start(config, framework_id.clone(), term);
    let role = settings.framework_role.clone();
    feeds.spawn(feed_mesos(events, inputs.clone(), role, metrics.clone()));

    let (complete, completed) = mpsc::channel(sweep::MOST_WAITING);
    if let Some(access) = backups {
        let sweeper = Sweeper {
            access: access.clone(),
            views: views.subscribe(),
            unusable: unusable.clone(),
            keep_deleted: settings.backup_keep_deleted,
        };
        feeds.spawn(sweeper.run(completed));
    }
    let mut state = State::new(policy(settings), framework_id, clusters, unusable);
    state.keeping = keeping;
    let discovery_root = discovery_root(settings);
    let driver = Driver {
        state,
        hands: Hands::new(
            store,
            handle,
            inputs.clone(),
            task_template(settings, executor),
            metrics.clone(),
            discovery_root.clone(),
            framework.map(|(_, version)| version),
        ),
        inputs: receiver,
        views: views.clone(),
        unknown_shown: 0,
        left_shown: 0,
        requested: Requested::default(),
        metrics: metrics.clone(),
        complete,
        door: door(key.clone()),
        discovery_root,
    };
    tokio::select! {
        ended = driver.run(stop) => ended,
        // The other end is the API's, which is there as long as the process.
        () = feed_requests(api, inputs) => Ok(()),
    }
}

/// What a failure at the beginning of a term means. What ZooKeeper did not answer is asked again in another term; what
/// cannot be understood or is not allowed ends the process.
fn ending(error: anyhow::Error) -> Ending {
    let sentence = format!("{error:#}");
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::ZooKeeper(zookeeper::Error::Refused { .. })) => Ending::Fatal(sentence),
        Some(StoreError::Deposed | StoreError::ZooKeeper(_)) => Ending::TermOver(sentence),
        _ => Ending::Fatal(sentence),
    }
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        election_timeout: settings.election_timeout,
        session_timeout: SESSION_TIMEOUT,
        timings: settings.timings,
        volumes: settings.volumes,
        keep_deleted: settings.keep_deleted,
        voter_patience: settings.voter_patience,
        replace_after: settings.replace_after,
        voter_lag: settings.voter_lag,
        packages: settings.packages.clone(),
        failover_limit: settings.failover_limit,
        failover_window: settings.failover_window,
        spread_patience: match settings.spread {
            Spread::Prefer => Some(SPREAD_PATIENCE),
            Spread::Require => None,
        },
        spread_by: SpreadBy::names(settings.spread_by.iter().cloned()),
        archive: settings
            .backup_store
            .clone()
            .filter(|_| settings.archive_binlogs)
            .map(ArchiveOrder::new),
        rules: Rules::LAW,
        backups: settings.backup_store.clone().map(|store| BackupPolicy {
            store,
            schedule: settings.backup_schedule.clone(),
            keep: settings.backup_keep,
            at_once: settings.backups_at_once,
            verify: settings.verify_backups,
        }),
        chance: rand::random(),
    }
}

pub(super) fn acls(settings: &Settings) -> Acls {
    match (settings.zk_url.credentials(), &settings.executor_zk) {
        (Some(own), Some(executor)) => {
            Acls::closed(own, &executor.credentials, settings.zk_reader.as_ref())
        }
        // The settings have no executor identity without credentials of the URL and the other way
        // round, and have warned that everything is open.
        _ => Acls::open(),
    }
}

async fn open_store(settings: &Settings, session: &Session) -> anyhow::Result<Store> {
    let storage = match settings.state_storage {
        StateStorage::ZooKeeper => store::StateStorage::Zk,
        StateStorage::Local => store::StateStorage::Local(settings.work_dir.join("state")),
    };
    Store::open(session.clone(), acls(settings), storage)
        .await
        .context("open the state")
}

/// Reads all clusters. One that cannot be read is told of and left alone; it does not keep the
/// others from being looked after.
async fn load(
    store: &Store,
    key: &Key,
) -> anyhow::Result<(
    Vec<StoredCluster>,
    BTreeSet<crate::cluster::id::ClusterName>,
)> {
    let mut clusters = Vec::new();
    let mut unusable = BTreeSet::new();
    for loaded in store.load_all().await.context("load the clusters")? {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(fault) => {
                error!("{fault}");
                unusable.extend(fault.name.parse().ok());
                continue;
            }
        };
        let name = loaded.record.name().clone();
        let password = match seal::open(key, &loaded.record.sealed_password) {
            Ok(password) => password,
            Err(fault) => {
                error!(cluster = %name, %fault, "the cluster's password cannot be opened with the key of --scheduler-keypath; the cluster is left alone");
                unusable.insert(name);
                continue;
            }
        };
        // A scheduler that kept its state in files may have died between file and publication.
        let version = if loaded.is_published {
            loaded.version
        } else {
            store
                .commit(&loaded.record, Some(loaded.version))
                .await
                .with_context(|| format!("publish the goal of {name} again"))?
        };
        clusters.push(StoredCluster {
            record: loaded.record,
            version,
            password,
        });
    }
    Ok((clusters, unusable))
}

/// Reads what is kept of deleted clusters. What cannot be read is told of and left alone: its slots are not destroyed.
async fn load_retained(store: &Store, key: &Key) -> anyhow::Result<Keeping> {
    let mut kept = Vec::new();
    let mut unusable = BTreeSet::new();
    let all = store.load_retained().await;
    for loaded in all.context("load what is kept of deleted clusters")? {
        let (retained, version) = match loaded {
            Ok(loaded) => loaded,
            Err(fault) => {
                error!("{fault}");
                unusable.extend(fault.name.parse::<Uuid>().ok());
                continue;
            }
        };
        let sealed = retained
            .record
            .as_ref()
            .map(|record| &record.sealed_password);
        let password = sealed.and_then(|sealed| {
            let incarnation = retained.incarnation();
            let opened = seal::open(key, sealed).inspect_err(|fault| {
                warn!(%incarnation, %fault, "the password of a deleted cluster cannot be opened with the key of --scheduler-keypath; it cannot be brought back");
            });
            opened.ok()
        });
        kept.push(StoredRetained {
            retained,
            version,
            password,
        });
    }
    Ok(Keeping::new(kept, unusable))
}

async fn feed_requests(api: &mut mpsc::Receiver<ApiRequest>, inputs: mpsc::Sender<Input>) {
    while let Some(request) = api.recv().await {
        if inputs.send(Input::Request(request)).await.is_err() {
            return;
        }
    }
}

async fn feed_reports(mut reports: ReportWatch, inputs: mpsc::Sender<Input>) {
    loop {
        let event = match reports.next().await {
            ReportEvent::Changed { cluster, report } => Event::Reported { cluster, report },
            ReportEvent::Gone { cluster, task, .. } => Event::ReportGone {
                cluster,
                task_id: task,
            },
            ReportEvent::Synced => Event::ControlRestored,
            ReportEvent::Suspended => Event::ControlLost,
            ReportEvent::Unreadable { path, fault } => {
                warn!(path, fault, "a report cannot be read and is ignored");
                continue;
            }
        };
        if inputs.send(Input::Event(event)).await.is_err() {
            return;
        }
    }
}

async fn feed_mesos(
    mut events: mpsc::Receiver<SchedulerEvent>,
    inputs: mpsc::Sender<Input>,
    role: String,
    metrics: Arc<Metrics>,
) {
    while let Some(event) = events.recv().await {
        let told: Vec<Input> = match event {
            SchedulerEvent::InverseOffers(offers) => {
                let offers = offers.iter().filter_map(wire::inverse_offer);
                let event = |offer| Input::Event(Event::Inverse(offer));
                offers.map(event).collect()
            }
            SchedulerEvent::Offers(offers) => offered(&offers, &role, &metrics),
            event => mesos_input(event).into_iter().collect(),
        };
        for input in told {
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// What there is for this framework among offers, and which of them have nothing.
fn offered(offers: &[v1::Offer], role: &str, metrics: &Metrics) -> Vec<Input> {
    metrics.resource_offers.inc_by(offers.len() as u64);
    let (mut usable, mut foreign) = (Vec::new(), Vec::new());
    for offer in offers {
        match wire::offer(offer, role) {
            Some(offer) => usable.push(offer),
            None => foreign.push(offer.id.value.clone()),
        }
    }
    metrics
        .offers_incompatible_role
        .inc_by(foreign.len() as u64);
    let events = [Event::Offers(usable), Event::Foreign(foreign)];
    events.into_iter().map(Input::Event).collect()
}

/// What a message of Mesos means for the loop, if anything.
fn mesos_input(event: SchedulerEvent) -> Option<Input> {
    let event = match event {
        SchedulerEvent::Subscribed {
            framework_id,
            master,
        } => {
            info!(framework_id, master, "registered with Mesos");
            Event::Subscribed { framework_id }
        }
        SchedulerEvent::Disconnected { reason } => {
            warn!(reason, "not connected to Mesos");
            Event::MesosLost
        }
        SchedulerEvent::Rescind(offer) => Event::Rescinded(offer),
        SchedulerEvent::RescindInverse(offer) => Event::InverseWithdrawn(offer),
        SchedulerEvent::Update(status) => return Some(Input::Status(Box::new(status))),
        SchedulerEvent::OperationStatus(status) => {
            return Some(Input::Operation(Box::new(status)));
        }
        SchedulerEvent::FailedOver { message } => {
            return Some(Input::End(Ending::TermOver(message)));
        }
        SchedulerEvent::Fatal { message } => return Some(Input::End(Ending::Fatal(message))),
        SchedulerEvent::Failure {
            agent_id,
            executor_id,
            status,
        } => {
            info!(
                ?agent_id,
                ?executor_id,
                ?status,
                "Mesos reports a failure; the task's own update says what it means"
            );
            return None;
        }
        // Executors report through ZooKeeper.
        SchedulerEvent::Message { .. }
        // Taken apart by the caller.
        | SchedulerEvent::Offers(_)
        | SchedulerEvent::InverseOffers(_) => return None,
    };
    Some(Input::Event(event))
}

fn mesos_config(settings: &Settings) -> SchedulerConfig {
    let principal = settings.framework_authentication.as_ref();
    SchedulerConfig {
        masters: settings.mesos_master.clone(),
        framework: v1::FrameworkInfo {
            user: settings.framework_user.clone(),
            name: "cotton".to_owned(),
            failover_timeout: Some(settings.framework_failover_timeout.as_secs_f64()),
            checkpoint: Some(true),
            hostname: settings
                .advertise
                .rsplit_once(':')
                .map(|(host, _)| host.to_owned()),
            webui_url: Some(format!("http://{}/", settings.advertise)),
            principal: principal.map(|principal| principal.principal.clone()),
            roles: vec![settings.framework_role.clone()],
            capabilities: wire::capabilities(&settings.spread_by),
            ..Default::default()
        },
        credential: principal.map(|principal| Credential {
            principal: principal.principal.clone(),
            secret: principal.secret.clone(),
        }),
        timeouts: Timeouts::default(),
    }
}

/// The URL below which clients find clusters. It never holds Cotton's own credentials.
fn discovery_root(settings: &Settings) -> String {
    let readable = settings.zk_url.with_credentials(settings.zk_reader.clone());
    format!("{}{}", readable.expose(), paths::DISCOVER)
}

fn task_template(settings: &Settings, executor: Option<&ExecutorBinary>) -> TaskTemplate {
    let own_uri =
        executor.map(|binary| format!("http://{}{}", settings.advertise, binary.url_path()));
    let uri = settings.executor_uri.clone().or(own_uri);
    // Mesos saves what it fetches under the last part of its path.
    let fetched = uri
        .as_ref()
        .and_then(|uri| uri.rsplit('/').next())
        .map(str::to_owned);
    let command = settings.executor_cmd.clone().unwrap_or_else(|| {
        format!(
            "exec ./{} executor",
            fetched.unwrap_or_else(|| "cotton".to_owned())
        )
    });
    TaskTemplate {
        role: settings.framework_role.clone(),
        principal: settings
            .framework_authentication
            .as_ref()
            .map(|credential| credential.principal.clone()),
        executor_uri: uri,
        executor_command: command,
        executor_environment: settings
            .executor_environ
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .collect(),
        source_prefix: settings.executor_source_prefix.clone(),
        zookeeper: settings.zk_url.with_credentials(None).to_string(),
        zookeeper_identity: settings
            .executor_zk
            .as_ref()
            .map(|identity| identity.path.display().to_string()),
        session_timeout_ms: SESSION_TIMEOUT.as_millis() as u64,
        admin_keypath: settings.admin_keypath.display().to_string(),
        installer: settings.installer.clone(),
        timings: settings.timings,
        copy_rate_mib: settings.copy_rate_mib,
        copy_cost_percent: settings.copy_cost_percent,
    }
}
