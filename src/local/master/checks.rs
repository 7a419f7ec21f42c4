//! What is wrong with resources and with operations on them, before anything is done. Pure. The
//! sentences are Mesos'.
//!
//! Source: `src/master/validation.cpp` and `Resources::validate` in `src/common/resources.cpp` of
//! Apache Mesos.

use std::collections::BTreeSet;

use crate::local::reservation;
use crate::local::resources::{Resources, text};
use crate::mesos::v1::offer::Operation;
use crate::mesos::v1::offer::operation::{Create, Destroy, Reserve, Type, Unreserve};
use crate::mesos::v1::resource::reservation_info;
use crate::mesos::v1::{FrameworkInfo, Resource, value, volume};

use super::validate;

/// Checks that an operation has its part and that the resources in it are resources.
///
/// # Errors
///
/// What is wrong with it.
pub fn operation_form(operation: &Operation) -> Result<(), String> {
    let missing = |article: &str, kind: Type, field: &str| {
        let kind = kind.as_str_name();
        format!("{article} {kind} offer operation must have the Offer.Operation.{field} field set.")
    };
    let kind = operation.r#type();
    let list = match kind {
        Type::Reserve => {
            let part = operation.reserve.as_ref();
            let part = part.ok_or_else(|| missing("A", kind, "reserve"))?;
            if !part.source.is_empty() {
                return Err(
                    "Reservation updates are not yet implemented for the scheduler API.".to_owned(),
                );
            }
            &part.resources
        }
        Type::Unreserve => {
            let part = operation.unreserve.as_ref();
            &part
                .ok_or_else(|| missing("An", kind, "unreserve"))?
                .resources
        }
        Type::Create => {
            let part = operation.create.as_ref();
            &part.ok_or_else(|| missing("A", kind, "create"))?.volumes
        }
        Type::Destroy => {
            let part = operation.destroy.as_ref();
            &part.ok_or_else(|| missing("A", kind, "destroy"))?.volumes
        }
        Type::Unknown
        | Type::Launch
        | Type::LaunchGroup
        | Type::GrowVolume
        | Type::ShrinkVolume
        | Type::CreateDisk
        | Type::DestroyDisk => return Ok(()),
    };
    forms(list)
}

/// Checks an operation, whose form is right, of a framework on an agent that has `total`.
///
/// # Errors
///
/// What is wrong with it.
pub fn operation(
    operation: &Operation,
    framework: &FrameworkInfo,
    roles: &[String],
    total: &Resources,
) -> Result<(), String> {
    let empty = || "Operation contains no resources".to_owned();
    match operation.r#type() {
        Type::Reserve => {
            let part = operation.reserve.as_ref().ok_or_else(empty)?;
            reserve(part, framework, roles)
        }
        Type::Unreserve => unreserve(operation.unreserve.as_ref().ok_or_else(empty)?),
        Type::Create => {
            let part = operation.create.as_ref().ok_or_else(empty)?;
            create(part, framework, total)
        }
        Type::Destroy => destroy(operation.destroy.as_ref().ok_or_else(empty)?, total),
        Type::Unknown => Err("Unknown operation".to_owned()),
        kind @ (Type::Launch
        | Type::LaunchGroup
        | Type::GrowVolume
        | Type::ShrinkVolume
        | Type::CreateDisk
        | Type::DestroyDisk) => Err(format!(
            "{} is not supported by the agents of this master",
            kind.as_str_name()
        )),
    }
}

fn reserve(reserve: &Reserve, framework: &FrameworkInfo, roles: &[String]) -> Result<(), String> {
    resources(&reserve.resources).map_err(|why| format!("Invalid resources: {why}"))?;
    for one in &reserve.resources {
        if !reservation::is_dynamic(one) {
            return Err(format!(
                "Resource {} is not dynamically reserved",
                text(one)
            ));
        }
        if let Some(principal) = &framework.principal {
            check_reservation_principal(one, principal)?;
        }
        let reserved = reservation::role(one).unwrap_or_default();
        let allocated = one.allocation_info.as_ref().map_or("", |info| info.role());
        if allocated != reserved {
            return Err(format!(
                "A reserve operation was attempted for a resource with role '{reserved}', but the resource \
                 was allocated to role '{allocated}'"
            ));
        }
        if !roles.iter().any(|role| role == allocated) {
            return Err(format!(
                "A reserve operation was attempted for a resource allocated to role '{allocated}', but the \
                 framework only has roles '{{ {} }}'",
                roles.join(", ")
            ));
        }
    }
    Ok(())
}

fn check_reservation_principal(one: &Resource, principal: &str) -> Result<(), String> {
    let stated = one
        .reservations
        .last()
        .and_then(|last| last.principal.as_deref());
    match stated {
        None => Err(format!(
            "A reserve operation was attempted by principal '{principal}', but there is a reserved resource in \
             the request with no principal set"
        )),
        Some(stated) if stated != principal => Err(format!(
            "A reserve operation was attempted by authenticated principal '{principal}', which does not match a \
             reserved resource in the request with principal '{stated}'"
        )),
        Some(_) => Ok(()),
    }
}

fn unreserve(unreserve: &Unreserve) -> Result<(), String> {
    resources(&unreserve.resources).map_err(|why| format!("Invalid resources: {why}"))?;
    for one in &unreserve.resources {
        if !reservation::is_dynamic(one) {
            return Err(format!(
                "Resource {} is not dynamically reserved",
                text(one)
            ));
        }
        if reservation::persistence_id(one).is_some() {
            return Err(format!(
                "A dynamically reserved persistent volume {} cannot be unreserved directly. Please destroy the \
                 persistent volume first then unreserve the resource",
                text(one)
            ));
        }
    }
    Ok(())
}

fn create(create: &Create, framework: &FrameworkInfo, total: &Resources) -> Result<(), String> {
    resources(&create.volumes).map_err(|why| format!("Invalid resources: {why}"))?;
    persistent_volumes(&create.volumes).map_err(|why| format!("Not a persistent volume: {why}"))?;
    let mut all = reservation::volumes(total);
    all.extend(create.volumes.iter().cloned());
    unique_persistence_ids(&all)?;
    for one in &create.volumes {
        if one.shared.is_some() {
            return Err(format!(
                "Shared persistent volume {} is not supported by the agents of this master",
                text(one)
            ));
        }
        if let Some(principal) = &framework.principal {
            check_volume_principal(one, principal)?;
        }
    }
    Ok(())
}

fn check_volume_principal(one: &Resource, principal: &str) -> Result<(), String> {
    let disk = one.disk.as_ref();
    let persistence = disk.and_then(|disk| disk.persistence.as_ref());
    match persistence.and_then(|persistence| persistence.principal.as_deref()) {
        None => Err(format!(
            "Create volume operation attempted by principal '{principal}', but there is a volume in the \
             operation with no principal set in 'disk.persistence'"
        )),
        Some(stated) if stated != principal => Err(format!(
            "Create volume operation attempted by authenticated principal '{principal}', which does not match \
             a volume in the operation with principal '{stated}' set in 'disk.persistence'"
        )),
        Some(_) => Ok(()),
    }
}

fn destroy(destroy: &Destroy, total: &Resources) -> Result<(), String> {
    resources(&destroy.volumes).map_err(|why| format!("Invalid resources: {why}"))?;
    persistent_volumes(&destroy.volumes)
        .map_err(|why| format!("Not a persistent volume: {why}"))?;
    for one in &destroy.volumes {
        if !total.contains(&Resources::new([one]).unallocated()) {
            return Err("Persistent volumes not found".to_owned());
        }
    }
    Ok(())
}

fn persistent_volumes(list: &[Resource]) -> Result<(), String> {
    for one in list {
        let Some(disk) = &one.disk else {
            return Err(format!("Resource {} does not have DiskInfo", text(one)));
        };
        if disk.persistence.is_none() {
            return Err("'persistence' is not set in DiskInfo".to_owned());
        }
        match &disk.volume {
            None => return Err("Expecting 'volume' to be set for persistent volume".to_owned()),
            Some(volume) if volume.mode() == volume::Mode::Ro => {
                return Err("Read-only persistent volume not supported".to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Persistence ids must be unique for a role on an agent, and within a task.
///
/// # Errors
///
/// Which one is not.
pub fn unique_persistence_ids(list: &[Resource]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for one in list {
        if let Some(id) = reservation::persistence_id(one)
            && !seen.insert((reservation::role(one), id))
        {
            return Err(format!("Persistence ID '{id}' is not unique"));
        }
    }
    Ok(())
}

/// Checks the form of resources in a task, an executor or an operation.
///
/// # Errors
///
/// What is wrong with the first wrong one.
pub fn resources(list: &[Resource]) -> Result<(), String> {
    forms(list).map_err(|why| format!("Invalid resources: {why}"))?;
    for one in list {
        disk(one).map_err(|why| format!("Invalid DiskInfo: {why}"))?;
    }
    Ok(())
}

fn forms(list: &[Resource]) -> Result<(), String> {
    for one in list {
        form(one).map_err(|why| format!("Resource '{}' is invalid: {why}", text(one)))?;
    }
    Ok(())
}

fn form(one: &Resource) -> Result<(), String> {
    if one.name.is_empty() {
        return Err("Empty resource name".to_owned());
    }
    let (scalar, ranges, set) = (&one.scalar, &one.ranges, &one.set);
    match one.r#type() {
        value::Type::Scalar => match (scalar, ranges, set) {
            // Amounts are counted in thousandths; what would be counted as none must be none.
            (Some(scalar), None, None)
                if scalar.value.is_nan()
                    || scalar.value != 0.0 && (scalar.value * 1000.0).round() <= 0.0 =>
            {
                return Err("Invalid scalar resource: value <= 0".to_owned());
            }
            (Some(_), None, None) => {}
            _ => return Err("Invalid scalar resource".to_owned()),
        },
        value::Type::Ranges => match (scalar, ranges, set) {
            (None, Some(ranges), None) => check_ranges(&ranges.range)?,
            _ => return Err("Invalid ranges resource".to_owned()),
        },
        value::Type::Set => match (scalar, ranges, set) {
            (None, None, Some(set)) => {
                let different: BTreeSet<_> = set.item.iter().collect();
                if different.len() != set.item.len() {
                    return Err("Invalid set resource: duplicated elements".to_owned());
                }
            }
            _ => return Err("Invalid set resource".to_owned()),
        },
        value::Type::Text => return Err("Unsupported resource type".to_owned()),
    }
    if one.disk.is_some() && one.name != "disk" {
        return Err(format!(
            "DiskInfo should not be set for {} resource",
            one.name
        ));
    }
    reservations(one)
}

fn check_ranges(ranges: &[value::Range]) -> Result<(), String> {
    let mut sorted: Vec<(u64, u64)> = ranges.iter().map(|one| (one.begin, one.end)).collect();
    if sorted.iter().any(|(begin, end)| begin > end) {
        return Err("Invalid ranges resource: begin > end".to_owned());
    }
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[1].0 <= pair[0].1) {
        return Err("Invalid ranges resource: overlapping ranges".to_owned());
    }
    Ok(())
}

fn reservations(one: &Resource) -> Result<(), String> {
    let mut above: Option<&str> = None;
    for reservation in &one.reservations {
        if reservation.r#type.is_none() {
            return Err(
                "Invalid reservation: 'Resource.ReservationInfo.type' field must be set."
                    .to_owned(),
            );
        }
        let Some(role) = reservation.role.as_deref() else {
            return Err(
                "Invalid reservation: 'Resource.ReservationInfo.role' field must be set."
                    .to_owned(),
            );
        };
        validate::role(role)?;
        if role == "*" {
            return Err("Invalid reservation: role \"*\" cannot be reserved".to_owned());
        }
        if let Some(above) = above {
            if reservation.r#type() == reservation_info::Type::Static {
                return Err(
                    "Invalid refined reservation: A refined reservation cannot be STATIC"
                        .to_owned(),
                );
            }
            let below = role.strip_prefix(above);
            if !below.is_some_and(|rest| rest.starts_with('/')) {
                return Err(format!(
                    "Invalid refined reservation: role '{role}' is not a refinement of '{above}'"
                ));
            }
        }
        above = Some(role);
    }
    Ok(())
}

fn disk(one: &Resource) -> Result<(), String> {
    let Some(disk) = &one.disk else {
        return Ok(());
    };
    if let Some(persistence) = &disk.persistence {
        if one.reservations.is_empty() {
            return Err(
                "Persistent volumes cannot be created from unreserved resources".to_owned(),
            );
        }
        let Some(volume) = &disk.volume else {
            return Err("Expecting 'volume' to be set for persistent volume".to_owned());
        };
        if volume.host_path.is_some() {
            return Err("Expecting 'host_path' to be unset for persistent volume".to_owned());
        }
        return validate::id(&persistence.id)
            .map_err(|why| format!("Invalid persistence ID for persistent volume: {why}"));
    }
    if disk.volume.is_some() {
        return Err("Non-persistent volume not supported".to_owned());
    }
    if disk.source.is_none() {
        return Err("DiskInfo is set but empty".to_owned());
    }
    Ok(())
}
