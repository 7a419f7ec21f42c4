//! Goal: reservations, volumes and the news of operations survive whatever dies, reach whom they
//! concern, and wrong operations are refused with Mesos' sentences; where the recordings do not
//! reach.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Instant;

use serde_json::{Value, json};

use super::machine::{Machine, Scheduler, framework_info, task};

fn scalar(name: &str, value: f64) -> Value {
    json!({"name": name, "type": "SCALAR", "scalar": {"value": value}})
}

/// A resource reserved for the framework's role.
fn reserved(mut plain: Value) -> Value {
    plain["reservations"] = json!([{"type": "DYNAMIC", "role": "cotton", "principal": "cotton"}]);
    plain
}

fn volume(id: &str, mebibytes: f64) -> Value {
    let mut volume = reserved(scalar("disk", mebibytes));
    volume["disk"] = json!({
        "persistence": {"id": id, "principal": "cotton"},
        "volume": {"container_path": "data", "mode": "RW"},
    });
    volume
}

fn reserve(id: &str, resources: &[Value]) -> Value {
    json!({"type": "RESERVE", "id": {"value": id}, "reserve": {"resources": resources}})
}

fn create(id: &str, volumes: &[Value]) -> Value {
    json!({"type": "CREATE", "id": {"value": id}, "create": {"volumes": volumes}})
}

/// The next offer that has a volume.
async fn offer_with_volume(scheduler: &Scheduler) -> Value {
    let has = |offer: &&Value| {
        let resources = offer["resources"].as_array().unwrap();
        resources.iter().any(|one| one.get("disk").is_some())
    };
    scheduler
        .events
        .take("offer of a volume", |event| {
            let offers = event["offers"]["offers"].as_array()?;
            offers.iter().find(has).cloned()
        })
        .await
}

async fn come_back(machine: &Machine, scheduler: &Scheduler) -> Scheduler {
    let mut framework = framework_info();
    framework["id"] = json!({"value": scheduler.framework_id});
    Scheduler::subscribe_as(&machine.master, framework).await
}

#[tokio::test]
async fn a_volume_survives_agent_master_and_framework() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&["--no-cgroups"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    let mut launched = task("t", &offer, "plain");
    launched["resources"][2] = volume("v", 64.0);
    let launch = json!({"type": "LAUNCH", "launch": {"task_infos": [launched]}});
    let mut operations = vec![
        reserve("r", &[reserved(scalar("disk", 64.0))]),
        create("c", &[volume("v", 64.0)]),
    ];
    for operation in &mut operations {
        // Nobody waits for these two.
        operation.as_object_mut().unwrap().remove("id");
    }
    operations.push(launch);
    scheduler.accept(&offer, json!(operations)).await;
    scheduler.update("t", "TASK_STARTING").await;
    scheduler.update("t", "TASK_RUNNING").await;
    let folder = machine.work_dir(0).join("volumes/roles/cotton/v");
    std::fs::write(folder.join("kept"), "kept").unwrap();

    scheduler
        .call(json!({"type": "KILL", "kill": {"task_id": {"value": "t"}}}))
        .await;
    scheduler.update("t", "TASK_KILLED").await;
    // The executor lives on without the volume: others may have it now.
    let sandbox = super::recordings::sandbox(&machine, 0, "t");
    crate::support::eventually("the link is gone", super::web::DEADLINE, || async {
        std::fs::read_link(sandbox.join("data"))
            .is_err()
            .then_some(())
    })
    .await;
    machine.agents[0].kill();
    machine.master.kill();
    machine.restart_master();
    machine.restart_agent(0);
    let scheduler = come_back(&machine, &scheduler).await;
    offer_with_volume(&scheduler).await;
    scheduler.call(json!({"type": "TEARDOWN"})).await;

    // Another framework of the role gets it, and destroys it.
    let other = Scheduler::subscribe(&machine.master).await;
    let offer = offer_with_volume(&other).await;
    assert_eq!(
        std::fs::read_to_string(folder.join("kept")).unwrap(),
        "kept"
    );
    let destroy = json!({
        "type": "DESTROY", "id": {"value": "d"}, "destroy": {"volumes": [volume("v", 64.0)]},
    });
    other.accept(&offer, json!([destroy])).await;
    assert_eq!(other.operation().await["state"], "OPERATION_FINISHED");
    assert!(!folder.exists());
}

#[tokio::test]
async fn the_end_of_an_operation_is_told_until_it_is_acknowledged() {
    const SCALE: f64 = 10.0;
    let mut machine = Machine::start(&[]);
    machine
        .add_agent(&["--no-cgroups", "--time-scale", "10"])
        .await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    let operation = reserve("r", &[reserved(scalar("cpus", 1.0))]);
    scheduler.accept(&offer, json!([operation])).await;
    let first = scheduler.operation().await;
    assert_eq!(first["state"], "OPERATION_FINISHED");
    let mut last = Instant::now();
    for seconds in [10.0, 20.0] {
        assert_eq!(scheduler.operation().await, first);
        let pause = last.elapsed().as_secs_f64() * SCALE;
        assert!(pause > seconds * 0.6, "{pause} instead of {seconds}");
        last = Instant::now();
    }

    // It is stored: by an agent that dies, and told to a master that knows nothing of it.
    machine.agents[0].kill();
    machine.master.kill();
    machine.restart_master();
    machine.restart_agent(0);
    let scheduler = come_back(&machine, &scheduler).await;
    assert_eq!(scheduler.operation().await, first);

    let ask = |operations: Value| json!({"type": "RECONCILE_OPERATIONS", "reconcile_operations": {"operations": operations}});
    let mut known = first.clone();
    known.as_object_mut().unwrap().remove("uuid");
    let named = json!([{"operation_id": {"value": "r"}, "agent_id": first["agent_id"]}]);
    for operations in [json!([]), named.clone()] {
        scheduler.call(ask(operations)).await;
        scheduler
            .events
            .take("answer to a reconciliation", |event| {
                (event["update_operation_status"]["status"] == known).then_some(())
            })
            .await;
    }
    scheduler.acknowledge_operation(&first).await;
    let sentences = [
        (named, "Reconciliation: Operation is unknown"),
        (
            json!([{"operation_id": {"value": "r"}, "agent_id": {"value": "no-such-agent"}}]),
            "Reconciliation: Both operation and agent are unknown",
        ),
        (
            json!([{"operation_id": {"value": "r"}}]),
            "Reconciliation: Operation is unknown and no 'agent_id' was provided",
        ),
    ];
    for (operations, sentence) in sentences {
        scheduler.call(ask(operations)).await;
        scheduler
            .events
            .take(sentence, |event| {
                let status = &event["update_operation_status"]["status"];
                let unknown = status["state"] == "OPERATION_UNKNOWN";
                (unknown && status["message"] == sentence).then_some(())
            })
            .await;
    }
}

#[tokio::test]
async fn wrong_operations_are_refused_with_a_sentence() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&["--no-cgroups"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let mut foreign = reserved(scalar("cpus", 1.0));
    foreign["reservations"][0]["role"] = json!("other");
    let mut nobody = reserved(scalar("cpus", 1.0));
    nobody["reservations"][0]
        .as_object_mut()
        .unwrap()
        .remove("principal");
    let mut read_only = volume("v", 1.0);
    read_only["disk"]["volume"]["mode"] = json!("RO");
    let bad = volume("a/b", 1.0);
    let unreserve = |one: Value| json!({"type": "UNRESERVE", "id": {"value": "x"}, "unreserve": {"resources": [one]}});
    let destroy = |one: Value| json!({"type": "DESTROY", "id": {"value": "x"}, "destroy": {"volumes": [one]}});
    let on_agent = format!(
        "; on agent {{agent}} at slave(1)@{} (127.0.0.1)",
        machine.agents[0].address()
    );
    let cases = [
        (
            reserve("x", &[scalar("cpus", 1.0)]),
            "Resource cpus(allocated: cotton):1 is not dynamically reserved{on}",
        ),
        (
            reserve("x", &[reserved(scalar("cpus", -1.0))]),
            "Operation attempted with invalid resources: Resource 'cpus(allocated: cotton)(reservations: \
             [(DYNAMIC,cotton,cotton)]):-1' is invalid: Invalid scalar resource: value <= 0",
        ),
        (
            reserve("x", &[foreign]),
            "A reserve operation was attempted for a resource with role 'other', but the resource was allocated \
             to role 'cotton'{on}",
        ),
        (
            reserve("x", &[nobody]),
            "A reserve operation was attempted by principal 'cotton', but there is a reserved resource in the \
             request with no principal set{on}",
        ),
        (
            json!({"type": "RESERVE", "id": {"value": "x"}}),
            "Operation attempted with invalid resources: A RESERVE offer operation must have the \
             Offer.Operation.reserve field set.",
        ),
        (
            create("x", &[reserved(scalar("disk", 1.0))]),
            "Not a persistent volume: Resource disk(allocated: cotton)(reservations: [(DYNAMIC,cotton,cotton)]):1 \
             does not have DiskInfo{on}",
        ),
        (
            create("x", &[read_only]),
            "Not a persistent volume: Read-only persistent volume not supported{on}",
        ),
        (
            create("x", &[bad]),
            "Invalid resources: Invalid DiskInfo: Invalid persistence ID for persistent volume: 'a/b' contains \
             invalid characters{on}",
        ),
        (
            create("x", &[volume("v", 1.0), volume("v", 1.0)]),
            "Persistence ID 'v' is not unique{on}",
        ),
        (
            unreserve(volume("v", 1.0)),
            "A dynamically reserved persistent volume disk(allocated: cotton)(reservations: \
             [(DYNAMIC,cotton,cotton)])[v:data]:1 cannot be unreserved directly. Please destroy the persistent \
             volume first then unreserve the resource{on}",
        ),
        (
            destroy(volume("v", 1.0)),
            "Persistent volumes not found{on}",
        ),
    ];
    for (operation, sentence) in cases {
        let offer = scheduler.offer("127.0.0.1").await;
        let agent = offer["agent_id"]["value"].as_str().unwrap();
        let expected = sentence
            .replace("{on}", &on_agent)
            .replace("{agent}", agent);
        scheduler.accept(&offer, json!([operation])).await;
        let status = scheduler.operation().await;
        assert_eq!(status["state"], "OPERATION_ERROR");
        assert_eq!(status["message"], expected);
        assert_eq!(status.get("uuid"), None);
    }
}

#[tokio::test]
async fn what_is_reserved_is_offered_to_its_role_alone() {
    let mut machine = Machine::start(&[]);
    machine.add_agent(&["--no-cgroups"]).await;
    let scheduler = Scheduler::subscribe(&machine.master).await;
    let offer = scheduler.offer("127.0.0.1").await;
    let part = [
        reserved(scalar("cpus", 1.5)),
        reserved(scalar("mem", 100.0)),
    ];
    scheduler.accept(&offer, json!([reserve("r", &part)])).await;
    scheduler.operation().await;
    let mut framework = framework_info();
    framework["roles"] = json!(["other"]);
    let other = Scheduler::subscribe_as(&machine.master, framework).await;
    scheduler.call(json!({"type": "TEARDOWN"})).await;
    let cpus = |offer: &Value| {
        let resources = offer["resources"].as_array().unwrap().iter();
        let cpus = resources.filter(|one| one["name"] == "cpus");
        cpus.map(|one| one["scalar"]["value"].as_f64().unwrap())
            .sum::<f64>()
    };
    other
        .events
        .take("what is not reserved", |event| {
            let offers = event["offers"]["offers"].as_array()?;
            offers.iter().any(|offer| cpus(offer) == 2.5).then_some(())
        })
        .await;
    // The rest is for the role, while the other framework has all it may have.
    let third = Scheduler::subscribe(&machine.master).await;
    assert_eq!(cpus(&third.offer("127.0.0.1").await), 1.5);
}
