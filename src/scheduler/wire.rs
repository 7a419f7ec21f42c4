//! Between Mesos' messages and the scheduler's words. Pure: no message is sent or received here.

mod reserved;

use std::{collections::BTreeMap, time::Duration};

use self::reserved::Parts;
use super::{
    event::{TaskState, TaskUpdate},
    maintenance::{InverseOffer, Window},
    members::KILL_GRACE_PERIOD,
    placement::{Ground, Launch, Offer, REGION, ZONE},
    retained::OperationUpdate,
};
use crate::{
    cluster::{
        control::{FORMAT, Installer, RestoreTask, TaskData, VERIFY_FORMAT},
        id::{MemberId, TaskId},
        record::ClusterRecord,
        size::Size,
        slot::{self, SlotId},
        timings::Timings,
        verification::VerifyTask,
    },
    mesos::{calls, v1},
    time::Timestamp,
};

/// What all of Cotton's tasks have in common.
#[derive(Debug, Clone)]
pub struct TaskTemplate {
    /// The role that resources are allocated to, and reserved for.
    pub role: String,
    /// Who the framework is for Mesos, which reservations and volumes have to repeat.
    pub principal: Option<String>,
    /// Where agents fetch the executor from; `None` if the command needs nothing.
    pub executor_uri: Option<String>,
    /// The command that starts the executor, run by the shell in the sandbox.
    pub executor_command: String,
    /// Environment variables of the executor, beside those of Mesos.
    pub executor_environment: Vec<(String, String)>,
    /// What stands before the task in `ExecutorInfo.source`.
    pub source_prefix: Option<String>,
    /// See [`TaskData::zookeeper`].
    pub zookeeper: String,
    /// See [`TaskData::zookeeper_identity`].
    pub zookeeper_identity: Option<String>,
    /// See [`TaskData::session_timeout_ms`].
    pub session_timeout_ms: u64,
    /// See [`TaskData::admin_keypath`].
    pub admin_keypath: String,
    /// See [`TaskData::installer`].
    pub installer: Installer,
    /// See [`TaskData::timings`].
    pub timings: Timings,
    /// See [`TaskData::copy_rate_mib`].
    pub copy_rate_mib: u32,
    /// See [`TaskData::copy_cost_percent`].
    pub copy_cost_percent: u8,
}

/// An offer in the scheduler's words, or `None` if it holds nothing for `role`: then all of it was
/// allocated to, or is reserved for, another role.
pub fn offer(message: &v1::Offer, role: &str) -> Option<Offer> {
    let allocated = message
        .allocation_info
        .as_ref()
        .and_then(|info| info.role.as_deref());
    if allocated.is_some_and(|allocated| allocated != role) {
        return None;
    }
    let mut offer = Offer {
        id: message.id.value.clone(),
        agent_id: message.agent_id.value.clone(),
        host: message.hostname.clone(),
        role: role.to_owned(),
        cpus: 0.0,
        mem_mib: 0.0,
        disk_mib: 0.0,
        ports: Vec::new(),
        slots: Vec::new(),
        attributes: attributes(message),
        unavailable: message.unavailability.as_ref().map(window),
    };
    let mut any = false;
    for resource in &message.resources {
        if !is_unreserved(resource) {
            reserved::add_to_slots(&mut offer.slots, resource, role);
            continue;
        }
        any = true;
        let amount = resource.scalar.as_ref().map_or(0.0, |scalar| scalar.value);
        match resource.name.as_str() {
            "cpus" => offer.cpus += amount,
            "mem" => offer.mem_mib += amount,
            "disk" if resource.disk.is_none() => offer.disk_mib += amount,
            "ports" => offer.ports.extend(port_ranges(resource)),
            _ => {}
        }
    }
    (any || !offer.slots.is_empty()).then_some(offer)
}

/// What the framework tells Mesos that it knows of.
pub fn capabilities(spread_by: &[String]) -> Vec<v1::framework_info::Capability> {
    use v1::framework_info::capability::Type;
    let mut capabilities = vec![
        Type::PartitionAware,
        Type::TaskKillingState,
        Type::ReservationRefinement,
        Type::MultiRole,
    ];
    // It brings offers of other regions than the master's, where nobody is to be who was not asked to.
    if spread_by.iter().any(|name| name == REGION) {
        capabilities.push(Type::RegionAware);
    }
    let capability = |kind: Type| v1::framework_info::Capability {
        r#type: Some(kind as i32),
    };
    capabilities.into_iter().map(capability).collect()
}

/// An agent's attributes as text, and the names of its fault domain.
fn attributes(message: &v1::Offer) -> BTreeMap<String, String> {
    let domain = message.domain.as_ref();
    let domain = domain.and_then(|domain| domain.fault_domain.as_ref());
    let domain = domain.into_iter().flat_map(|domain| {
        let (region, zone) = (domain.region.name.clone(), domain.zone.name.clone());
        [(REGION.to_owned(), region), (ZONE.to_owned(), zone)]
    });
    let given = message.attributes.iter().filter_map(|attribute| {
        let text = attribute.text.as_ref().map(|text| text.value.clone());
        let number = attribute.scalar.as_ref().map(|it| it.value.to_string());
        Some((attribute.name.clone(), text.or(number)?))
    });
    domain.chain(given).collect()
}

/// An inverse offer in the scheduler's words, or `None` if it names no agent: then there is nothing to say about it.
pub fn inverse_offer(message: &v1::InverseOffer) -> Option<InverseOffer> {
    let (from, lasts) = times(&message.unavailability);
    Some(InverseOffer {
        id: message.id.value.clone(),
        agent_id: message.agent_id.as_ref()?.value.clone(),
        from,
        lasts,
    })
}

/// From when on an agent is to be unavailable, and for how long; for ever if that is not said.
fn times(unavailability: &v1::Unavailability) -> (Timestamp, Option<Duration>) {
    let millis = |nanoseconds: i64| u64::try_from(nanoseconds / 1_000_000).unwrap_or(0);
    let lasts = unavailability.duration.as_ref();
    (
        Timestamp::from_millis(millis(unavailability.start.nanoseconds)),
        lasts.map(|lasts| Duration::from_millis(millis(lasts.nanoseconds))),
    )
}

fn window(unavailability: &v1::Unavailability) -> Window {
    let (from, lasts) = times(unavailability);
    Window {
        from,
        ends: lasts.map(|lasts| from.plus(lasts)),
    }
}

/// Whether a resource is free for whichever role it is allocated to. Reservations stand in
/// `reservations` for a framework that can refine them, else in the older fields.
fn is_unreserved(resource: &v1::Resource) -> bool {
    resource.reservations.is_empty() && resource.reservation.is_none()
}

fn port_ranges(resource: &v1::Resource) -> Vec<(u16, u16)> {
    let ranges = resource.ranges.iter().flat_map(|ranges| &ranges.range);
    // A number that is no port is nothing that a server could listen on.
    let range = |range: &v1::value::Range| {
        Some((
            u16::try_from(range.begin).ok()?.max(1),
            u16::try_from(range.end).ok()?,
        ))
    };
    ranges
        .filter_map(range)
        .filter(|(begin, end)| begin <= end)
        .collect()
}

/// A status update in the scheduler's words.
pub fn task_update(status: &v1::TaskStatus) -> TaskUpdate {
    let reason = status
        .reason
        .and_then(|reason| v1::task_status::Reason::try_from(reason).ok());
    let mut message = status.message.clone().unwrap_or_default();
    if message.is_empty() {
        message = reason.map_or_else(String::new, |reason| reason.as_str_name().to_owned());
    }
    TaskUpdate {
        task_id: TaskId::from_wire(status.task_id.value.clone()),
        agent_id: status.agent_id.as_ref().map(|agent| agent.value.clone()),
        state: match status.source() {
            // A master or an agent says something else with the same word.
            v1::task_status::Source::Executor if status.state() == v1::TaskState::TaskError => {
                TaskState::Unfit
            }
            _ => task_state(status.state()),
        },
        message,
        uuid: status.uuid.clone(),
    }
}

fn task_state(state: v1::TaskState) -> TaskState {
    match state {
        v1::TaskState::TaskStaging => TaskState::Staging,
        v1::TaskState::TaskStarting => TaskState::Starting,
        v1::TaskState::TaskRunning => TaskState::Running,
        v1::TaskState::TaskKilling => TaskState::Killing,
        v1::TaskState::TaskFinished => TaskState::Finished,
        v1::TaskState::TaskFailed => TaskState::Failed,
        v1::TaskState::TaskKilled => TaskState::Killed,
        v1::TaskState::TaskError => TaskState::Error,
        v1::TaskState::TaskLost => TaskState::Lost,
        v1::TaskState::TaskDropped => TaskState::Dropped,
        v1::TaskState::TaskUnreachable => TaskState::Unreachable,
        v1::TaskState::TaskGone => TaskState::Gone,
        v1::TaskState::TaskGoneByOperator => TaskState::GoneByOperator,
        v1::TaskState::TaskUnknown => TaskState::Unknown,
    }
}

/// What Mesos is asked for with the offer of a launch, in this order; `None` if the task is not in the record, or the offer
/// does not hold what the launch is to stand on. Nothing secret goes in: Mesos shows it to anybody.
pub fn operations(
    template: &TaskTemplate,
    record: &ClusterRecord,
    launch: &Launch,
) -> Option<Vec<v1::offer::Operation>> {
    let port = launch.task.port;
    if record.is_verification(&launch.task.task_id) {
        let resources = unreserved(template, &launch.size, port);
        let task = task_info(template, record, launch, resources)?;
        return Some(vec![calls::launch(vec![task])]);
    }
    let member = record.member_of(&launch.task.task_id)?;
    let (mut operations, resources) = match &launch.ground {
        Ground::Sandbox => (Vec::new(), unreserved(template, &launch.size, port)),
        Ground::New(id) => {
            let size = &launch.size;
            let whole = reserved::reservation(template, record, member, id, size, port);
            let volume = Parts::of(&whole).new_volume(template, id, size)?;
            let resources = of_slot(&Parts::of(&whole), volume.clone(), launch)?;
            let operations = vec![reserved::reserve(whole), reserved::create(volume)];
            (operations, resources)
        }
        Ground::Reserved(id) => {
            let parts = Parts::of(&launch.offer.slot(id)?.resources);
            let volume = parts.new_volume(template, id, &launch.size)?;
            let resources = of_slot(&parts, volume.clone(), launch)?;
            (vec![reserved::create(volume)], resources)
        }
        Ground::Volume(id) => {
            let parts = Parts::of(&launch.offer.slot(id)?.resources);
            (Vec::new(), of_slot(&parts, parts.volume()?, launch)?)
        }
    };
    let task = task_info(template, record, launch, resources)?;
    operations.push(calls::launch(vec![task]));
    Some(operations)
}

/// What Mesos is asked for with an offer so that slots in it end: their volumes are destroyed, what is reserved is given back. For
/// each slot, whether its agent is asked for feedback.
pub fn release(offer: &Offer, slots: &BTreeMap<SlotId, bool>) -> Vec<v1::offer::Operation> {
    let named = slots.iter().filter_map(|(id, feedback)| {
        let id_of_operation = feedback.then(|| format!("{id}{OF_OFFER}{}", offer.id));
        Some(reserved::release(offer.slot(id)?, id_of_operation))
    });
    named.flatten().collect()
}

/// Stands between slot and offer in the id of an operation.
const OF_OFFER: char = '@';

/// What an operation's status says of a slot, or `None` if it is not final, or not about one.
pub fn operation_update(status: &v1::OperationStatus) -> Option<OperationUpdate> {
    use v1::OperationState as S;
    let operation = status.operation_id.as_ref()?.value.clone();
    let (slot, _) = operation.rsplit_once(OF_OFFER)?;
    let done = match status.state() {
        S::OperationFinished | S::OperationGoneByOperator => true,
        S::OperationFailed | S::OperationError | S::OperationDropped => false,
        S::OperationUnsupported
        | S::OperationPending
        | S::OperationUnreachable
        | S::OperationRecovering
        | S::OperationUnknown => return None,
    };
    Some(OperationUpdate {
        slot: SlotId::from_wire(slot),
        operation,
        done,
    })
}

/// What a task and its executor use.
struct Shares {
    task: Vec<v1::Resource>,
    executor: Vec<v1::Resource>,
}

fn unreserved(template: &TaskTemplate, size: &Size, port: u16) -> Shares {
    let mut task = scalars(&size.server_share(), &template.role);
    task.push(ports(port, &template.role));
    Shares {
        task,
        executor: scalars(&Size::EXECUTOR, &template.role),
    }
}

fn of_slot(parts: &Parts<'_>, volume: v1::Resource, launch: &Launch) -> Option<Shares> {
    let executors_disk = Size::EXECUTOR.disk_mib();
    let mut task = parts.scalars(
        &launch.size.server_share(),
        slot::SANDBOX_DISK_MIB - executors_disk,
    )?;
    task.push(parts.port(launch.task.port)?);
    task.push(volume);
    Some(Shares {
        task,
        executor: parts.scalars(&Size::EXECUTOR, executors_disk)?,
    })
}

/// The task of a launch as Mesos is told it, or `None` if the task is not in the record.
fn task_info(
    template: &TaskTemplate,
    record: &ClusterRecord,
    launch: &Launch,
    resources: Shares,
) -> Option<v1::TaskInfo> {
    let task_id = &launch.task.task_id;
    let member = record.member_of(task_id);
    let verify = verify(record, task_id);
    if member.is_none() && verify.is_none() {
        return None;
    }
    let configuration = match member {
        Some(member) => record.configuration_of(member),
        None => record.spec.configuration(),
    };
    // An executor that verifies makes nothing of the number.
    let number = member.unwrap_or(MemberId(0));
    let package = configuration.package.map(|package| package.installer);
    let data = TaskData {
        format: match member {
            Some(_) => FORMAT,
            None => VERIFY_FORMAT,
        },
        cluster: record.name().clone(),
        uuid: record.uuid,
        member: number,
        task_id: task_id.clone(),
        port: launch.task.port,
        memory_mib: launch.size.mem_mib(),
        zookeeper: template.zookeeper.clone(),
        zookeeper_identity: template.zookeeper_identity.clone(),
        session_timeout_ms: template.session_timeout_ms,
        admin_keypath: template.admin_keypath.clone(),
        installer: package.unwrap_or_else(|| template.installer.clone()),
        timings: template.timings,
        copy_rate_mib: template.copy_rate_mib,
        copy_cost_percent: template.copy_cost_percent,
        restore: member.and_then(|_| restore(record)),
        my_cnf: configuration.my_cnf,
        verify,
    };
    let id = launch.task.task_id.to_string();
    let prefix = template
        .source_prefix
        .as_deref()
        .map(|prefix| format!("{prefix}."));
    let what = match member {
        Some(member) => member.server_id().to_string(),
        None => "verify".to_owned(),
    };
    let source = format!("{}{}.{what}", prefix.unwrap_or_default(), record.name());
    Some(v1::TaskInfo {
        name: match member {
            Some(member) => format!("mysql {} {member}", record.name()),
            None => format!("verify {}", record.name()),
        },
        task_id: v1::TaskId { value: id.clone() },
        agent_id: v1::AgentId {
            value: launch.task.agent_id.clone(),
        },
        resources: resources.task,
        executor: Some(executor_info(template, id, source, resources.executor)),
        // Serialising a struct of strings and numbers into memory cannot fail; an empty text would
        // be refused by the executor with a sentence.
        data: Some(serde_json::to_vec(&data).unwrap_or_default()),
        kill_policy: Some(v1::KillPolicy {
            grace_period: Some(grace_period()),
        }),
        ..Default::default()
    })
}

/// What a task begins with if it finds no data. Once a master has opened, the members copy from each other: what they
/// restored would lack what was written since, which the master's binlogs may not go back to.
fn restore(record: &ClusterRecord) -> Option<RestoreTask> {
    let restore = record.restore.as_ref().filter(|restore| !restore.done)?;
    Some(RestoreTask {
        from: restore.from.clone(),
        user: record.user.name.clone(),
    })
}

/// What a task verifies, if that is what it is for.
fn verify(record: &ClusterRecord, task_id: &TaskId) -> Option<VerifyTask> {
    let verification = &record.backups.verification;
    let backup = verification
        .under_way()
        .filter(|_| record.is_verification(task_id))?;
    Some(VerifyTask {
        id: backup.id.clone(),
        store: backup.store.clone(),
    })
}

fn executor_info(
    template: &TaskTemplate,
    id: String,
    source: String,
    resources: Vec<v1::Resource>,
) -> v1::ExecutorInfo {
    let variable = |(name, value): &(String, String)| v1::environment::Variable {
        name: name.clone(),
        value: Some(value.clone()),
        ..Default::default()
    };
    let uri = |uri: &String| v1::command_info::Uri {
        value: uri.clone(),
        executable: Some(true),
        extract: Some(false),
        ..Default::default()
    };
    v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Custom as i32),
        executor_id: v1::ExecutorId { value: id },
        name: Some("cotton executor".to_owned()),
        source: Some(source),
        command: Some(v1::CommandInfo {
            shell: Some(true),
            value: Some(template.executor_command.clone()),
            uris: template.executor_uri.iter().map(uri).collect(),
            environment: Some(v1::Environment {
                variables: template.executor_environment.iter().map(variable).collect(),
            }),
            ..Default::default()
        }),
        resources,
        shutdown_grace_period: Some(grace_period()),
        ..Default::default()
    }
}

fn grace_period() -> v1::DurationInfo {
    v1::DurationInfo {
        nanoseconds: KILL_GRACE_PERIOD.as_nanos() as i64,
    }
}

fn allocated_to(role: &str) -> Option<v1::resource::AllocationInfo> {
    Some(v1::resource::AllocationInfo {
        role: Some(role.to_owned()),
    })
}

fn scalars(size: &Size, role: &str) -> Vec<v1::Resource> {
    let scalar = |name: &str, value: f64| v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        allocation_info: allocated_to(role),
        ..Default::default()
    };
    vec![
        scalar("cpus", size.cpus()),
        scalar("mem", size.mem_mib() as f64),
        scalar("disk", size.disk_mib() as f64),
    ]
}

fn ports(port: u16, role: &str) -> v1::Resource {
    let range = v1::value::Range {
        begin: port.into(),
        end: port.into(),
    };
    v1::Resource {
        name: "ports".to_owned(),
        r#type: v1::value::Type::Ranges as i32,
        ranges: Some(v1::value::Ranges { range: vec![range] }),
        allocation_info: allocated_to(role),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
