//! What operators ask of a running cluster, and how long its clients notice.

use std::time::{Duration, Instant};

use cotton::cluster::view::{ClusterState, ClusterView};

use super::eventually;
use super::faults::{Outcome, RECOVERY_DEADLINE, Victim, begin, end, hit, tell};
use super::fleet::Fleet;
use super::load::Load;
use super::system::Cluster;

/// Something that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planned {
    /// One member more, and then as many as before, whether it has come by then or not.
    Scaled,
    /// Another master.
    SwitchedOver,
    /// Another member in the place of one.
    Replaced(Victim),
    /// A member's task ends, and the next one takes its place.
    Restarted(Victim),
}

impl Planned {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Scaled,
        Self::SwitchedOver,
        Self::Replaced(Victim::Master),
        Self::Replaced(Victim::Slave),
        Self::Restarted(Victim::Master),
        Self::Restarted(Victim::Slave),
    ];

    /// Whether the master stays who it is.
    fn leaves_the_master(self) -> bool {
        matches!(
            self,
            Self::Scaled | Self::Replaced(Victim::Slave) | Self::Restarted(Victim::Slave)
        )
    }

    /// Asks for it, and waits until it is over.
    async fn carry_out(
        self,
        fleet: &Fleet,
        cluster: &Cluster,
        view: &ClusterView,
        lasting: Duration,
    ) {
        let member = |victim| hit(view, victim).clone();
        match self {
            Self::Scaled => {
                let nodes = view.num_nodes;
                for (number, lasts) in [(nodes + 1, lasting), (nodes, Duration::ZERO)] {
                    ask(
                        fleet,
                        cluster,
                        "PUT",
                        "",
                        ("num_nodes", &number.to_string()),
                    )
                    .await;
                    tokio::time::sleep(lasts).await;
                }
                let all_stay = |view: &ClusterView| {
                    view.members.len() == nodes as usize
                        && view.members.iter().all(|it| !it.leaving)
                };
                wait(fleet, cluster, "has as many as before", all_stay).await;
            }
            Self::SwitchedOver => {
                let to = member(Victim::Slave).id.to_string();
                ask(fleet, cluster, "POST", "/switchover", ("to", &to)).await;
                let is_over = |view: &ClusterView| {
                    let last = view.standing.switchover.as_ref();
                    last.is_none_or(|it| !it.is_pending())
                };
                wait(fleet, cluster, "has ended its switchover", is_over).await;
            }
            Self::Replaced(victim) => {
                let old = member(victim).id;
                let number = old.to_string();
                ask(fleet, cluster, "POST", "/replace", ("member", &number)).await;
                let has_left =
                    |view: &ClusterView| view.members.iter().all(|member| member.id != old);
                wait(fleet, cluster, "has replaced it", has_left).await;
            }
            Self::Restarted(victim) => {
                let old = member(victim);
                let number = old.id.to_string();
                ask(fleet, cluster, "POST", "/restart", ("member", &number)).await;
                let is_back = |view: &ClusterView| {
                    let mut members = view.members.iter();
                    members.any(|it| {
                        it.id == old.id && it.task_id.is_some() && it.task_id != old.task_id
                    })
                };
                wait(fleet, cluster, "has restarted it", is_back).await;
            }
        }
    }
}

/// Asks until it is granted: it is refused for as long as voters are being changed, or writes would have to wait for somebody.
async fn ask(fleet: &Fleet, cluster: &Cluster, method: &str, path: &str, field: (&str, &str)) {
    let path = format!("{}{path}", cluster.name);
    let fields = [("password", cluster.account.password.as_str()), field];
    eventually("it is granted", RECOVERY_DEADLINE, async || {
        let answer = fleet.request(method, &path, &fields).await?;
        assert!([200, 409, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
}

async fn wait(fleet: &Fleet, cluster: &Cluster, what: &str, is_so: impl Fn(&ClusterView) -> bool) {
    let runs = |view: &ClusterView| view.state == ClusterState::Running && is_so(view);
    fleet
        .wait_until(cluster, what, RECOVERY_DEADLINE, runs)
        .await;
}

/// Asks for something of a cluster that is at rest, under a load, and waits until it is so again.
pub async fn go_through(
    fleet: &Fleet,
    cluster: &Cluster,
    load: &Load,
    planned: Planned,
    lasting: Duration,
) -> Outcome {
    let (view, failed) = begin(fleet, cluster, load).await;
    planned.carry_out(fleet, cluster, &view, lasting).await;
    let over = Instant::now();
    let (_, outcome) = end(fleet, cluster, load, (&view, failed), over).await;
    tell(fleet, &view, &format!("{planned:?}: {outcome:?}")).await;
    if planned.leaves_the_master() {
        assert_eq!(outcome.failovers, 0, "{planned:?} has changed the master");
    }
    outcome
}
