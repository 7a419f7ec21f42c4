//! A core behind a real listening server: it keeps clusters in a map and answers as the scheduler does.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cotton::{
    backup::store::Store,
    cluster::{
        backup::{BackupId, BackupStore, PendingBackup},
        change::{Changed, Course},
        configuration::Package,
        control::{Installer, ServerKind},
        data_loss::Prospect,
        explanation::Explanation,
        flavour::{Flavour, ServerVersion},
        id::{ClusterName, MemberId, TaskId},
        retained::Orphaned,
        slot_view::Left,
        spec::{ClusterSpec, Rules},
        switchover::Switchover,
        unknown_task::{UnknownList, UnknownTask},
        view::ClusterView,
    },
    http::{
        errors::{ApiError, Problem},
        executor_binary::ExecutorBinary,
        leader::ToLeader,
        metrics::Metrics,
        port::{
            ApiRequest, BackingUp, BackupAccess, Changing, Created, Deleted, FailingOver,
            MAX_PATIENT_READERS, Reclaiming, Replacing, Restarting, Scaling, SchedulerPort,
            SwitchingOver, Undeleting, Views,
        },
    },
    secret::Secret,
    time::Timestamp,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The password that the core makes when none is given.
pub const MADE_PASSWORD: &str = "w9gMCkecsMh6sWsRdxNTa";

/// The password of the administrator.
pub const ADMINISTRATOR: &str = "of-the-administrator";

type Clusters = Arc<Mutex<BTreeMap<ClusterName, (ClusterSpec, Secret)>>>;

/// A server with a core behind it; both end when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub views: watch::Sender<Views>,
    pub metrics: Arc<Metrics>,
    clusters: Clusters,
    _stop: tokio_util::sync::DropGuard,
}

/// An answer that was read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Server {
    pub async fn start() -> Self {
        let (requests, inbox) = mpsc::channel(16);
        let clusters = Clusters::default();
        tokio::spawn(core(inbox, clusters.clone()));
        Self::with_core(requests, clusters, None, None).await
    }

    /// One with a store of backups in a folder.
    pub async fn with_backups(folder: &std::path::Path) -> Self {
        Self::with_store(BackupStore {
            url: format!("file://{}", folder.display()),
            region: None,
            endpoint: None,
            credentials: None,
            key: None,
            rate_mib: 0,
        })
        .await
    }

    /// One with this store of backups.
    pub async fn with_store(settings: BackupStore) -> Self {
        let (requests, inbox) = mpsc::channel(16);
        let clusters = Clusters::default();
        tokio::spawn(core(inbox, clusters.clone()));
        let store = Store::open(&settings).unwrap();
        let access = Arc::new(BackupAccess { settings, store });
        Self::with_core(requests, clusters, None, Some(access)).await
    }

    pub async fn with_executor(binary: ExecutorBinary) -> Self {
        let (requests, _) = mpsc::channel(1);
        Self::with_core(requests, Clusters::default(), Some(Arc::new(binary)), None).await
    }

    /// A server whose requests end in `requests`.
    pub async fn with_requests(requests: mpsc::Sender<ApiRequest>) -> Self {
        Self::with_core(requests, Clusters::default(), None, None).await
    }

    async fn with_core(
        requests: mpsc::Sender<ApiRequest>,
        clusters: Clusters,
        executor: Option<Arc<ExecutorBinary>>,
        backups: Option<Arc<BackupAccess>>,
    ) -> Self {
        let (views, seen) = watch::channel(Views {
            loaded: true,
            ..Views::default()
        });
        let metrics = Arc::new(Metrics::register(
            prometheus_client::registry::Registry::default(),
        ));
        let rules = Arc::new(Rules {
            admin_user: "admin".to_owned(),
            packages: packages(),
        });
        let port = SchedulerPort {
            requests,
            views: seen,
            patient: Arc::new(Semaphore::new(MAX_PATIENT_READERS)),
            metrics: metrics.clone(),
            executor,
            rules,
            administrator: Arc::new(Secret::new(ADMINISTRATOR)),
            backups,
            leader: ToLeader::new("127.0.0.1:1".to_owned()),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(cotton::http::serve(
            listener,
            cotton::http::router(port),
            stop.clone(),
        ));
        Self {
            address,
            views,
            metrics,
            clusters,
            _stop: stop.drop_guard(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The clusters that the core was asked to make.
    pub fn clusters(&self) -> Vec<ClusterSpec> {
        self.clusters
            .lock()
            .unwrap()
            .values()
            .map(|(spec, _)| spec.clone())
            .collect()
    }

    pub fn show(&self, connected: bool, clusters: Vec<ClusterView>) {
        let clusters = clusters
            .into_iter()
            .map(|view| (view.name.clone(), Arc::new(view)));
        self.views.send_replace(Views {
            loaded: true,
            connected,
            clusters: clusters.collect(),
            ..Views::default()
        });
    }

    /// Shows a task that no record explains, and how many more there are, beside what is shown already.
    pub fn show_unknown_task(&self, task: UnknownTask, more: usize) {
        let mut views = Views::clone(&self.views.borrow());
        let tasks = vec![task];
        views.unknown_tasks = Arc::new(UnknownList { tasks, more });
        self.views.send_replace(views);
    }

    /// Shows what is left of deleted clusters, and orphans, beside what is shown already.
    pub fn show_left(&self, left: Left) {
        let mut views = Views::clone(&self.views.borrow());
        views.left = Arc::new(left);
        self.views.send_replace(views);
    }

    /// Shows why, beside what is shown already.
    pub fn explain(&self, explanation: Explanation) {
        let mut views = Views::clone(&self.views.borrow());
        let name = explanation.name.clone();
        views.explanations.insert_mut(name, Arc::new(explanation));
        self.views.send_replace(views);
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .header("content-type", kind)
            .body(Full::new(body.into()))
            .unwrap();
        self.exchange(request).await
    }

    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Answer {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "text/plain", "").await
    }

    pub async fn form(&self, method: Method, path: &str, body: &str) -> Answer {
        self.send(
            method,
            path,
            "application/x-www-form-urlencoded",
            body.to_owned(),
        )
        .await
    }

    /// What `curl --form` sends.
    pub async fn multipart(&self, method: Method, path: &str, fields: &[(&str, &[u8])]) -> Answer {
        let mut body = Vec::new();
        for (name, value) in fields {
            let head = format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--xyz--\r\n");
        self.send(method, path, "multipart/form-data; boundary=xyz", body)
            .await
    }
}

/// The packages that clusters can choose here.
fn packages() -> Vec<Package> {
    let package = |name: &str, flavour, version| Package {
        name: name.to_owned(),
        installer: Installer::Search,
        server: ServerKind { flavour, version },
    };
    vec![
        package("mysql-9.7", Flavour::Mysql, ServerVersion::new(9, 7, 4)),
        package(
            "mariadb-10.6",
            Flavour::Mariadb,
            ServerVersion::new(10, 6, 22),
        ),
        package(
            "mariadb-11.8",
            Flavour::Mariadb,
            ServerVersion::new(11, 8, 6),
        ),
    ]
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The refusal, after a look at its form.
    pub fn problem(&self) -> Problem {
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem.status, self.status.as_u16());
        assert!(
            problem.kind.starts_with("urn:cotton:problem:"),
            "{}",
            problem.kind
        );
        assert!(!problem.title.is_empty());
        problem
    }
}

async fn core(mut inbox: mpsc::Receiver<ApiRequest>, clusters: Clusters) {
    let url = |name: &ClusterName| format!("zk://z:2181/cotton/discover/{name}");
    while let Some(request) = inbox.recv().await {
        let mut clusters = clusters.lock().unwrap();
        match request {
            ApiRequest::Create {
                spec,
                password,
                restore: _,
                reply,
            } => {
                let name = spec.name.clone();
                let same = |(old, secret): &(ClusterSpec, Secret)| {
                    *old == spec && password.as_ref().is_none_or(|given| given == secret)
                };
                let answer = match clusters.get(&name) {
                    Some(old) if same(old) => Ok(old.1.clone()),
                    Some(_) => Err(ApiError::Exists(name.clone())),
                    None => {
                        let password = password.unwrap_or(Secret::new(MADE_PASSWORD));
                        clusters.insert(name.clone(), (spec, password.clone()));
                        Ok(password)
                    }
                };
                let cluster_url = url(&name);
                let answer = answer.map(|cluster_password| Created {
                    cluster_password,
                    cluster_url,
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Delete {
                name,
                password,
                reply,
            } => {
                let answer = owner(&mut clusters, &name, password).map(|_| Deleted {
                    cluster_url: url(&name),
                });
                if answer.is_ok() {
                    clusters.remove(&name);
                }
                reply.send(answer).unwrap();
            }
            ApiRequest::Change {
                name,
                password,
                change,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.map(|(spec, _)| Changing {
                    cluster_url: url(&name),
                    changed: change.apply(spec),
                    course: Course {
                        planned: change.plan,
                        ..Course::default()
                    },
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Pause {
                name,
                password,
                paused,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.map(|_| Changing {
                    cluster_url: url(&name),
                    changed: vec![Changed {
                        field: "paused".into(),
                        from: (!paused).to_string(),
                        to: paused.to_string(),
                    }],
                    course: Course::default(),
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Switchover {
                name,
                password,
                to,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let to = to.unwrap_or(MemberId(1));
                let answer = owned.map(|_| SwitchingOver {
                    cluster_url: url(&name),
                    to,
                    switchover: (to != MemberId(0)).then(|| switchover(to)),
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Undelete {
                name,
                target,
                incarnation,
                reply,
                ..
            } => {
                let answer = match name.as_str() {
                    "deleted" => Ok(Undeleting {
                        cluster_url: url(target.as_ref().unwrap_or(&name)),
                        incarnation: incarnation.unwrap_or(Uuid::from_u128(1)),
                    }),
                    _ => Err(ApiError::NothingKept(name)),
                };
                reply.send(answer).unwrap();
            }
            ApiRequest::Reclaim { slot, reply } => {
                let whose = Orphaned {
                    cluster: "orders".parse().unwrap(),
                    incarnation: Uuid::from_u128(1),
                };
                let answer = match slot.as_str() {
                    "an-orphan" => Ok(Reclaiming {
                        slot,
                        whose,
                        lost: "no record says what lies on it".to_owned(),
                    }),
                    "of-a-member" => Err(ApiError::NotPossible("it is in use".to_owned())),
                    other => Err(ApiError::UnknownSlot(other.to_owned())),
                };
                reply.send(answer).unwrap();
            }
            ApiRequest::Backup {
                name,
                password,
                store,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.map(|_| BackingUp {
                    cluster_url: url(&name),
                    backup: PendingBackup {
                        number: 1,
                        id: BackupId::new(&name, Timestamp::from_millis(1_769_947_200_000)),
                        store: *store,
                        asked_at: Timestamp::from_millis(1_769_947_200_000),
                        scheduled: false,
                        source: None,
                    },
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::DeleteBackup {
                name,
                password,
                id: _,
                left: _,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                reply.send(owned.map(|_| ())).unwrap();
            }
            ApiRequest::Scale {
                name,
                password,
                num_nodes,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.map(|(spec, _)| Scaling {
                    cluster_url: url(&name),
                    from: std::mem::replace(&mut spec.num_nodes, num_nodes),
                    to: num_nodes,
                    durability: spec.durability,
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Restart {
                name,
                password,
                member,
                force,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.map(|_| Restarting {
                    cluster_url: url(&name),
                    member,
                    task_id: TaskId::from_wire(format!("{name}.00000001.{member}.1")),
                    note: format!("member {member} is restarted, force={force}"),
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Replace {
                name,
                password,
                member,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.map(|_| Replacing {
                    cluster_url: url(&name),
                    member,
                    replacement: Some(MemberId(member.0 + 7)),
                });
                reply.send(answer).unwrap();
            }
            ApiRequest::Failover {
                name,
                password,
                accept_data_loss,
                reply,
            } => {
                let owned = owner(&mut clusters, &name, password);
                let answer = owned.and_then(|_| match accept_data_loss {
                    true => Ok(FailingOver {
                        cluster_url: url(&name),
                        prospect: prospect(),
                    }),
                    false => Err(ApiError::LossNotAccepted(prospect().sentences())),
                });
                reply.send(answer).unwrap();
            }
        }
    }
}

type Known = (ClusterSpec, Secret);

/// The cluster, if the password is right.
fn owner<'a>(
    clusters: &'a mut BTreeMap<ClusterName, Known>,
    name: &ClusterName,
    password: Option<Secret>,
) -> Result<&'a mut Known, ApiError> {
    let known = clusters.get_mut(name);
    let known = known.ok_or_else(|| ApiError::UnknownCluster(name.to_string()))?;
    match password {
        None => Err(ApiError::PasswordMissing),
        Some(given) if known.1 != given => Err(ApiError::PasswordWrong),
        Some(_) => Ok(known),
    }
}

/// The switchover of any cluster here.
fn switchover(to: MemberId) -> Switchover {
    serde_json::from_value(serde_json::json!({
        "number": 3, "epoch": 2, "from": 0, "process": Uuid::from_u128(1), "to": to, "asked_at": 1000,
    }))
    .unwrap()
}

/// What a failover of any cluster comes to here.
pub fn prospect() -> Prospect {
    serde_json::from_value(serde_json::json!({
        "given_up": [{"member": 0, "why": "nothing is heard of it", "task_id": "orders.1.0.1", "address": "db0:31007",
            "held": {"epoch": 2, "data": Uuid::from_u128(1), "position": {"mariadb": "0-1-7"}}}],
        "in_sight": [1],
        "candidate": {"member": 1, "holds": {"mariadb": "0-1-5"}},
        "known_lost": [{"whose": "member 0", "transactions": {"mariadb": "0-1-7"}}],
        "unfenced": [], "note": "more may be lost",
    }))
    .unwrap()
}
