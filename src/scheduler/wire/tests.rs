//! Goal: slots are reserved, made, used and recognised in the words that a real Mesos took. Method: what is sent for a launch on a
//! slot is compared with the recorded ACCEPT, and recorded offers are read.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::{
    cluster::{
        control::{Authentication, ClusterUser},
        id::MemberId,
        record::TaskRecord,
        slot::SlotId,
        spec::ClusterSpec,
        voters::Durability,
    },
    mesos::json,
    scheduler::{placement::Holds, slots},
    time::Timestamp,
};

const RECORDING: &str = include_str!("../../../tests/fixtures/mesos/04-volume.txt");

fn template() -> TaskTemplate {
    TaskTemplate {
        role: "cotton".into(),
        principal: Some("cotton".into()),
        executor_uri: None,
        executor_command: "cotton executor".into(),
        executor_environment: Vec::new(),
        source_prefix: None,
        zookeeper: "zk://z/c".into(),
        zookeeper_identity: None,
        session_timeout_ms: 6000,
        admin_keypath: "/admin".into(),
        installer: Installer::Search,
        timings: Timings::default(),
        copy_rate_mib: 0,
        copy_cost_percent: 10,
    }
}

/// A record with a launch, as the plan would have it.
fn launched() -> (ClusterRecord, Launch) {
    let spec = ClusterSpec {
        name: "demo".parse().unwrap(),
        user: "shop".to_owned().try_into().unwrap(),
        num_nodes: 2,
        size: Size::DEFAULT,
        durability: Durability::Async,
        replace_after: None,
        backup_schedule: None,
        backup_keep: None,
        my_cnf: None,
        package: None,
    };
    let user = ClusterUser {
        name: "shop".into(),
        authentication: Authentication {
            mysql: "m".into(),
            mariadb: "a".into(),
        },
    };
    let now = Timestamp::from_millis(1);
    let mut record = ClusterRecord::new(spec, Uuid::from_u128(7), String::new(), user, now);
    let member = MemberId(1);
    let task = TaskRecord {
        task_id: TaskId::new(record.name(), record.uuid, member, 1),
        agent_id: "S1".into(),
        host: "h".into(),
        port: 31000,
        launched_at: now,
        unknown: Default::default(),
    };
    let slot = slots::new_slot(&record, member, 1, Size::DEFAULT, &task);
    let ground = Ground::New(slot.id.clone());
    let entry = record.members.get_mut(&member).unwrap();
    entry.task = Some(task.clone());
    entry.slot = Some(slot);
    let launch = Launch {
        offer: Offer {
            id: "O1".into(),
            agent_id: "S1".into(),
            host: "h".into(),
            role: "cotton".into(),
            cpus: 4.0,
            mem_mib: 4096.0,
            disk_mib: 20_000.0,
            ports: vec![(31000, 31999)],
            slots: Vec::new(),
            attributes: BTreeMap::new(),
            unavailable: None,
        },
        task,
        size: Size::DEFAULT,
        ground,
    };
    (record, launch)
}

/// The bodies of the recorded messages whose first line has this in it.
fn recorded(first_line: &str) -> Vec<serde_json::Value> {
    let mut bodies = Vec::new();
    let mut lines = RECORDING.lines();
    while let Some(line) = lines.next() {
        if line.contains(first_line) {
            let body = lines.by_ref().take_while(|line| !line.is_empty());
            bodies.push(serde_json::from_str(&body.collect::<String>()).unwrap());
        }
    }
    bodies
}

fn accepted(operation: &str) -> v1::scheduler::call::Accept {
    let calls = recorded("scheduler >> POST");
    let call = calls.into_iter().find(|call| {
        let operations = call["accept"]["operations"].as_array();
        operations.is_some_and(|it| it.iter().any(|it| it["type"] == operation))
    });
    let call: v1::scheduler::Call = json::from_slice(call.unwrap().to_string().as_bytes()).unwrap();
    call.accept.unwrap()
}

/// The same resource, but for its amount and the labels' and volume's names, which are this test's own.
fn shape(resource: &v1::Resource) -> v1::Resource {
    let mut shape = resource.clone();
    shape.allocation_info = None;
    shape.scalar = shape.scalar.map(|_| v1::value::Scalar { value: 1.0 });
    for reservation in &mut shape.reservations {
        assert!(!reservation.labels.as_ref().unwrap().labels.is_empty());
        reservation.labels = None;
    }
    if let Some(disk) = &mut shape.disk {
        disk.persistence.as_mut().unwrap().id = "id".into();
        disk.volume.as_mut().unwrap().container_path = "path".into();
    }
    shape
}

fn shapes(resources: &[v1::Resource]) -> Vec<v1::Resource> {
    let mut shapes: Vec<_> = resources.iter().map(shape).collect();
    shapes.sort_by_key(|it| (it.name.clone(), it.disk.is_some()));
    shapes
}

fn total(resources: &[v1::Resource], name: &str) -> f64 {
    let named = resources.iter().filter(|it| it.name == name);
    named.map(|it| it.scalar.as_ref().unwrap().value).sum()
}

#[test]
fn a_slot_is_made_in_the_words_that_mesos_took() {
    let (record, launch) = launched();
    let sent = operations(&template(), &record, &launch).unwrap();
    let taken = accepted("CREATE").operations;
    let kinds = |operations: &[v1::offer::Operation]| -> Vec<_> {
        operations.iter().map(|it| it.r#type).collect()
    };
    assert_eq!(kinds(&sent), kinds(&taken));
    let reserved = &sent[0].reserve.as_ref().unwrap().resources;
    assert_eq!(
        shapes(reserved),
        shapes(&taken[0].reserve.as_ref().unwrap().resources)
    );
    let made = &sent[1].create.as_ref().unwrap().volumes;
    assert_eq!(
        shapes(made),
        shapes(&taken[1].create.as_ref().unwrap().volumes)
    );
    let task = &sent[2].launch.as_ref().unwrap().task_infos[0];
    let taken = &taken[2].launch.as_ref().unwrap().task_infos[0];
    let volumes = |task: &v1::TaskInfo| -> Vec<_> {
        let used = task.resources.iter().filter(|it| it.disk.is_some());
        used.map(shape).collect()
    };
    assert_eq!(volumes(task), volumes(taken));
    // Nothing but what was reserved is used, and all of it.
    let executor = &task.executor.as_ref().unwrap().resources;
    let used = [task.resources.as_slice(), executor].concat();
    for name in ["cpus", "mem", "disk"] {
        assert!(
            (total(&used, name) - total(reserved, name)).abs() < 0.0005,
            "{name}"
        );
    }
    for resource in &used {
        assert_eq!(
            resource.reservations, reserved[0].reservations,
            "{}",
            resource.name
        );
    }
    assert_eq!(total(executor, "cpus"), 0.01);
}

/// What is offered after a slot was made, in the form of the recorded offers.
fn offered(record: &ClusterRecord, launch: &Launch, with_volume: bool) -> v1::Offer {
    let sent = operations(&template(), record, launch).unwrap();
    let mut resources = sent[0].reserve.as_ref().unwrap().resources.clone();
    if with_volume {
        let volume = sent[1].create.as_ref().unwrap().volumes[0].clone();
        let size = volume.scalar.unwrap().value;
        for resource in resources.iter_mut().filter(|it| it.name == "disk") {
            resource.scalar.as_mut().unwrap().value -= size;
        }
        resources.push(volume);
    }
    v1::Offer {
        id: v1::OfferId { value: "O2".into() },
        agent_id: v1::AgentId { value: "S1".into() },
        hostname: "h".into(),
        resources,
        ..Default::default()
    }
}

#[test]
fn a_slot_is_recognised_and_used_as_it_is_reserved() {
    let (mut record, launch) = launched();
    let slot = record.members[&MemberId(1)].slot.clone().unwrap();
    for with_volume in [false, true] {
        let offer = offer(&offered(&record, &launch, with_volume), "cotton").unwrap();
        assert_eq!((offer.cpus, offer.mem_mib, offer.disk_mib), (0.0, 0.0, 0.0));
        let held = offer.slot(&slot.id).unwrap();
        assert_eq!(held.owner.member, MemberId(1));
        assert_eq!(held.owner.incarnation, record.uuid);
        let (holds, ground) = match with_volume {
            false => (Holds::Reservation, Ground::Reserved(slot.id.clone())),
            true => (Holds::Volume, Ground::Volume(slot.id.clone())),
        };
        assert_eq!(held.holds(&slot), holds);
        // The principal of the time of the reservation stays that of the reservation.
        let later = TaskTemplate {
            principal: Some("another".into()),
            ..template()
        };
        let again = Launch {
            offer,
            ground,
            ..launch.clone()
        };
        let sent = operations(&later, &record, &again).unwrap();
        assert_eq!(sent.len(), if with_volume { 1 } else { 2 });
        let task = &sent.last().unwrap().launch.as_ref().unwrap().task_infos[0];
        for resource in &task.resources {
            assert_eq!(
                resource.reservations[0].principal.as_deref(),
                Some("cotton")
            );
        }
        assert!(task.resources.iter().any(|it| it.disk.is_some()));
    }
    record.members.get_mut(&MemberId(1)).unwrap().task = None;
    assert_eq!(
        operations(&template(), &record, &launch),
        None,
        "a task that is no longer wanted"
    );
}

#[test]
fn what_is_reserved_for_others_is_never_counted() {
    let offers = recorded("scheduler << event OFFERS");
    let mut reserved = 0;
    for event in offers {
        let event: v1::scheduler::Event = json::from_slice(event.to_string().as_bytes()).unwrap();
        for message in event.offers.unwrap().offers {
            reserved += message
                .resources
                .iter()
                .filter(|it| !is_unreserved(it))
                .count();
            // The recorded reservations lack the label with the slot.
            if let Some(offer) = offer(&message, "cotton") {
                assert_eq!(offer.slots, Vec::new());
                assert!(offer.cpus <= 4.0);
            }
        }
    }
    assert!(reserved > 0);
    let (record, launch) = launched();
    let of_cotton = offered(&record, &launch, true);
    assert!(offer(&of_cotton, "another").is_none());
    let id = SlotId::from_wire("x");
    assert!(offer(&of_cotton, "cotton").unwrap().slot(&id).is_none());
}

/// As recorded in `07-maintenance-and-drain.txt`.
#[test]
fn inverse_offers_are_read() {
    let offer = |agent: Option<&str>, lasts: Option<i64>| v1::InverseOffer {
        id: v1::OfferId { value: "O5".into() },
        agent_id: agent.map(|value| v1::AgentId {
            value: value.into(),
        }),
        unavailability: v1::Unavailability {
            start: v1::TimeInfo {
                nanoseconds: 1_795_320_396_007_996_160,
            },
            duration: lasts.map(|nanoseconds| v1::DurationInfo { nanoseconds }),
        },
        ..Default::default()
    };
    let read = inverse_offer(&offer(Some("S1"), Some(3_600_000_000_000))).unwrap();
    assert_eq!((read.id.as_str(), read.agent_id.as_str()), ("O5", "S1"));
    assert_eq!(read.from.as_millis(), 1_795_320_396_007);
    assert_eq!(read.lasts, Some(std::time::Duration::from_secs(3600)));
    assert_eq!(inverse_offer(&offer(Some("S1"), None)).unwrap().lasts, None);
    assert_eq!(inverse_offer(&offer(None, None)), None);
}

#[test]
fn attributes_and_fault_domains_say_where_an_agent_is() {
    let text = |name: &str, value: &str| v1::Attribute {
        name: name.into(),
        r#type: v1::value::Type::Text.into(),
        text: Some(v1::value::Text {
            value: value.into(),
        }),
        ..Default::default()
    };
    let level = v1::Attribute {
        name: "level".into(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value: 3.0 }),
        ..Default::default()
    };
    let fault_domain = v1::domain_info::FaultDomain {
        region: v1::domain_info::fault_domain::RegionInfo { name: "eu".into() },
        zone: v1::domain_info::fault_domain::ZoneInfo { name: "a".into() },
    };
    let message = v1::Offer {
        attributes: vec![text("rack", "r1"), text(ZONE, "own"), level],
        domain: Some(v1::DomainInfo {
            fault_domain: Some(fault_domain),
        }),
        unavailability: Some(v1::Unavailability::default()),
        resources: vec![v1::Resource {
            name: "cpus".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let offer = offer(&message, "cotton").unwrap();
    let known = [
        ("level", "3"),
        ("rack", "r1"),
        (REGION, "eu"),
        (ZONE, "own"),
    ];
    let known = known.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(offer.attributes, known.into());
    assert!(offer.unavailable.is_some());
}

#[test]
fn other_regions_are_asked_for_only_where_members_are_spread_by_them() {
    use v1::framework_info::capability::Type;
    let knows_regions = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let capabilities = capabilities(&names);
        let mut kinds = capabilities.iter().map(|it| it.r#type());
        kinds.any(|kind| kind == Type::RegionAware)
    };
    assert!(!knows_regions(&[ZONE]));
    assert!(knows_regions(&["rack", REGION]));
}
