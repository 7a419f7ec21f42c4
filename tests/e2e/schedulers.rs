//! Several schedulers: any of them answers, one leads, another takes over.

use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use nix::sys::signal::Signal;

use crate::support::eventually;
use crate::support::process::Process;
use crate::support::rest::curl;
use crate::support::system::{Options, System};

/// A session timeout of ZooKeeper, which asks for 6 s, and what a loaded machine adds.
const TAKEOVER: Duration = Duration::from_secs(30);

/// A scheduler that runs.
pub struct Scheduler {
    /// Its process.
    pub process: Process,
    /// Where its REST API is.
    pub api: String,
}

/// The schedulers of a system that run.
pub fn schedulers(system: &System) -> Vec<Scheduler> {
    let children = system.process().children().into_iter();
    children
        .filter_map(|process| {
            let arguments = process.arguments();
            if arguments.get(1).map(String::as_str) != Some("scheduler") {
                return None;
            }
            let at = arguments
                .iter()
                .position(|argument| argument == "--advertise")?;
            let api = format!("http://{}", arguments.get(at + 1)?);
            Some(Scheduler { process, api })
        })
        .collect()
}

/// Whether the scheduler with this API leads.
pub async fn is_leading(api: &str) -> bool {
    let vars = curl(&["--max-time", "2", &format!("{api}/vars.json")]).await;
    vars.is_some_and(|vars| vars.status == 200 && vars.json()["scheduler.leading"] == 1)
}

/// The scheduler that leads, if it is not the one with this API.
pub async fn leader(system: &System, but: Option<&str>) -> Scheduler {
    eventually("a scheduler leads", TAKEOVER, async || {
        for scheduler in schedulers(system) {
            if Some(scheduler.api.as_str()) != but && is_leading(&scheduler.api).await {
                return Some(scheduler);
            }
        }
        None
    })
    .await
}

/// What the scheduler at this address answers about a cluster.
async fn status_of(api: &str, cluster: &str) -> Option<u16> {
    let url = format!("{api}/clusters/{cluster}");
    Some(curl(&["--max-time", "5", &url]).await?.status)
}

#[tokio::test]
async fn another_scheduler_takes_over_from_one_that_hangs_or_is_killed() {
    let system = System::with_options(Options {
        arguments: vec!["--schedulers".to_owned(), "3".to_owned()],
        ..Options::new(Flavour::Mariadb)
    });
    let first = leader(&system, None).await;
    let framework = system.framework_id().await;
    let follower = schedulers(&system)
        .into_iter()
        .find(|scheduler| scheduler.api != first.api)
        .unwrap();

    // A follower passes on what it is asked, changes too, as soon as it has found the leader.
    eventually("the follower passes on", TAKEOVER, async || {
        (status_of(&follower.api, "one").await == Some(404)).then_some(())
    })
    .await;
    let url = format!("{}/clusters/one", follower.api);
    let asked = curl(&[
        "-X",
        "POST",
        &url,
        "--form",
        "cluster_user=app",
        "--form",
        "num_nodes=1",
    ])
    .await;
    assert_eq!(asked.unwrap().status, 200);
    // The other follower finds the leader in its own time.
    for scheduler in schedulers(&system) {
        for (cluster, status) in [("one", 200), ("none", 404)] {
            let what = format!("{} answers {status} about {cluster}", scheduler.api);
            eventually(&what, TAKEOVER, async || {
                (status_of(&scheduler.api, cluster).await == Some(status)).then_some(())
            })
            .await;
        }
    }

    // A leader that hangs is replaced, and follows when it goes on.
    let begun = Instant::now();
    first.process.signal(Signal::SIGSTOP);
    let second = leader(&system, Some(&first.api)).await;
    eventually(
        "the new leader answers for the cluster",
        TAKEOVER,
        async || (status_of(&second.api, "one").await == Some(200)).then_some(()),
    )
    .await;
    eprintln!(
        "taken over from a scheduler that hangs in {:?}",
        begun.elapsed()
    );
    first.process.signal(Signal::SIGCONT);
    eventually("the former leader follows", TAKEOVER, async || {
        let answers = status_of(&first.api, "one").await == Some(200);
        (answers && !is_leading(&first.api).await).then_some(())
    })
    .await;
    assert_eq!(system.framework_id().await, framework);

    // One that is killed is replaced, and what is asked of any of them then is done.
    let begun = Instant::now();
    second.process.kill();
    let third = leader(&system, None).await;
    eprintln!(
        "taken over from a scheduler that was killed in {:?}",
        begun.elapsed()
    );
    let url = format!("{}/clusters/two", third.api);
    eventually("the new leader takes requests", TAKEOVER, async || {
        let form = [
            "-X",
            "POST",
            &url,
            "--form",
            "cluster_user=app",
            "--form",
            "num_nodes=1",
        ];
        (curl(&form).await?.status == 200).then_some(())
    })
    .await;
    for cluster in ["one", "two"] {
        eventually(
            "the cluster runs",
            crate::support::CREATE_DEADLINE,
            async || {
                let answer = curl(&[&format!("{}/clusters/{cluster}", third.api)]).await?;
                (answer.status == 200 && answer.json()["state"] == "running").then_some(())
            },
        )
        .await;
    }
    assert_eq!(system.framework_id().await, framework);
}
