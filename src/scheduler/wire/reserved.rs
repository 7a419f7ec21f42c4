//! Slots in Mesos' words: reservations with labels, and persistent volumes. Pure.
//!
//! Source: the Mesos pages "Reservation" and "Persistent Volumes". Operations have to repeat a resource exactly as it is
//! reserved, principal and labels included; so what an offer holds of a slot is kept as it came.

use super::{TaskTemplate, port_ranges};
use crate::{
    cluster::{
        id::MemberId,
        record::ClusterRecord,
        size::Size,
        slot::{self, SlotId, SlotOwner},
    },
    mesos::v1,
    scheduler::placement::OfferedSlot,
};

/// The label with the cluster's name.
const CLUSTER: &str = "cotton.cluster";
/// The label with the incarnation of the name.
const INCARNATION: &str = "cotton.incarnation";
/// The label with the member's number.
const MEMBER: &str = "cotton.member";
/// The label with the slot's id. It also keeps Mesos from adding up what belongs to two slots of one agent.
const SLOT: &str = "cotton.slot";

/// The resources of a slot, sorted by what they are.
pub(super) struct Parts<'a> {
    all: Vec<&'a v1::Resource>,
}

/// Adds a resource to the slot that it is reserved for, if it is reserved for one. Nothing else that is reserved is touched.
pub(super) fn add_to_slots(slots: &mut Vec<OfferedSlot>, resource: &v1::Resource, role: &str) {
    let Some((id, owner)) = reserved_for(resource, role) else {
        return;
    };
    let index = slots.iter().position(|slot| slot.id == id);
    let index = index.unwrap_or_else(|| {
        slots.push(OfferedSlot {
            id: id.clone(),
            owner,
            cpus: 0.0,
            mem_mib: 0.0,
            disk_mib: 0.0,
            volume_mib: None,
            ports: Vec::new(),
            resources: Vec::new(),
        });
        slots.len() - 1
    });
    let slot = &mut slots[index];
    let amount = amount(resource);
    match (resource.name.as_str(), persistence_id(resource)) {
        ("cpus", _) => slot.cpus += amount,
        ("mem", _) => slot.mem_mib += amount,
        ("disk", None) if resource.disk.is_none() => slot.disk_mib += amount,
        // A volume with another id was not made by Cotton.
        ("disk", Some(volume)) if volume == id.as_str() => slot.volume_mib = Some(amount),
        ("ports", _) => slot.ports.extend(port_ranges(resource)),
        _ => return,
    }
    slot.resources.push(resource.clone());
}

/// The slot that a resource is reserved for by its labels.
fn reserved_for(resource: &v1::Resource, role: &str) -> Option<(SlotId, SlotOwner)> {
    let reservation = resource.reservations.last()?;
    if reservation.role.as_deref() != Some(role) {
        return None;
    }
    let labels = &reservation.labels.as_ref()?.labels;
    let label = |key: &str| {
        labels
            .iter()
            .find(|label| label.key == key)?
            .value
            .as_deref()
    };
    let owner = SlotOwner {
        cluster: label(CLUSTER)?.parse().ok()?,
        incarnation: label(INCARNATION)?.parse().ok()?,
        member: MemberId(label(MEMBER)?.parse().ok()?),
    };
    Some((SlotId::from_wire(label(SLOT)?), owner))
}

/// What a new slot reserves.
pub(super) fn reservation(
    template: &TaskTemplate,
    record: &ClusterRecord,
    member: MemberId,
    id: &SlotId,
    size: &Size,
    port: u16,
) -> Vec<v1::Resource> {
    let label = |key: &str, value: String| v1::Label {
        key: key.to_owned(),
        value: Some(value),
    };
    let labels = vec![
        label(CLUSTER, record.name().to_string()),
        label(INCARNATION, record.uuid.to_string()),
        label(MEMBER, member.to_string()),
        label(SLOT, id.to_string()),
    ];
    let reservation = v1::resource::ReservationInfo {
        r#type: Some(v1::resource::reservation_info::Type::Dynamic as i32),
        role: Some(template.role.clone()),
        principal: template.principal.clone(),
        labels: Some(v1::Labels { labels }),
    };
    let mut resources = super::scalars(size, &template.role);
    resources.push(super::ports(port, &template.role));
    for resource in &mut resources {
        resource.reservations = vec![reservation.clone()];
    }
    resources
}

/// The RESERVE operation.
pub(super) fn reserve(resources: Vec<v1::Resource>) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Reserve as i32),
        reserve: Some(v1::offer::operation::Reserve {
            resources,
            source: Vec::new(),
        }),
        ..Default::default()
    }
}

/// The CREATE operation.
pub(super) fn create(volume: v1::Resource) -> v1::offer::Operation {
    v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Create as i32),
        create: Some(v1::offer::operation::Create {
            volumes: vec![volume],
        }),
        ..Default::default()
    }
}

/// DESTROY of the volume, if there is one, and UNRESERVE of all, which gets the id: it cannot be done before the other is.
pub(super) fn release(
    slot: &OfferedSlot,
    id: Option<String>,
) -> impl Iterator<Item = v1::offer::Operation> {
    let parts = Parts::of(&slot.resources);
    let volume = parts.volume();
    let freed = volume.as_ref().map_or(0.0, amount);
    let reserved = slot
        .resources
        .iter()
        .filter(|it| persistence_id(it).is_none());
    let mut resources: Vec<v1::Resource> = reserved.cloned().collect();
    // What the volume is made of is plain disk again.
    if let Some(disk) = resources.iter_mut().find(|it| it.name == "disk") {
        let value = amount(disk) + freed;
        disk.scalar = Some(v1::value::Scalar { value });
    }
    let destroy = volume.map(|volume| v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Destroy as i32),
        destroy: Some(v1::offer::operation::Destroy {
            volumes: vec![volume],
        }),
        ..Default::default()
    });
    let unreserve = v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Unreserve as i32),
        unreserve: Some(v1::offer::operation::Unreserve { resources }),
        id: id.map(|value| v1::OperationId { value }),
        ..Default::default()
    };
    destroy.into_iter().chain([unreserve])
}

impl<'a> Parts<'a> {
    /// Of the resources of a slot.
    pub(super) fn of(resources: &'a [v1::Resource]) -> Self {
        Self {
            all: resources.iter().collect(),
        }
    }

    /// The volume to be made of the reserved disk.
    pub(super) fn new_volume(
        &self,
        template: &TaskTemplate,
        id: &SlotId,
        size: &Size,
    ) -> Option<v1::Resource> {
        let disk = self.scalar("disk", slot::volume_mib(size) as f64)?;
        Some(v1::Resource {
            disk: Some(v1::resource::DiskInfo {
                persistence: Some(v1::resource::disk_info::Persistence {
                    id: id.to_string(),
                    principal: template.principal.clone(),
                }),
                volume: Some(v1::Volume {
                    container_path: slot::CONTAINER_PATH.to_owned(),
                    host_path: None,
                    mode: v1::volume::Mode::Rw as i32,
                    source: None,
                }),
                source: None,
            }),
            ..disk
        })
    }

    /// The volume that is there.
    pub(super) fn volume(&self) -> Option<v1::Resource> {
        let volume = self.all.iter().find(|it| persistence_id(it).is_some());
        volume.map(|volume| (*volume).clone())
    }

    /// So much of a scalar resource, which is not that of the volume.
    pub(super) fn scalar(&self, name: &str, value: f64) -> Option<v1::Resource> {
        let whole = self
            .all
            .iter()
            .find(|it| it.name == name && it.disk.is_none())?;
        Some(v1::Resource {
            scalar: Some(v1::value::Scalar { value }),
            ..(**whole).clone()
        })
    }

    /// One port.
    pub(super) fn port(&self, port: u16) -> Option<v1::Resource> {
        let whole = self.all.iter().find(|it| it.name == "ports")?;
        let one = super::ports(port, "");
        Some(v1::Resource {
            ranges: one.ranges,
            ..(**whole).clone()
        })
    }

    /// The shares of a size; of the disk only what is not the volume.
    pub(super) fn scalars(&self, size: &Size, disk_mib: u64) -> Option<Vec<v1::Resource>> {
        Some(vec![
            self.scalar("cpus", size.cpus())?,
            self.scalar("mem", size.mem_mib() as f64)?,
            self.scalar("disk", disk_mib as f64)?,
        ])
    }
}

fn amount(resource: &v1::Resource) -> f64 {
    resource.scalar.as_ref().map_or(0.0, |scalar| scalar.value)
}

fn persistence_id(resource: &v1::Resource) -> Option<&str> {
    let disk = resource.disk.as_ref()?;
    disk.persistence.as_ref().map(|it| it.id.as_str())
}
