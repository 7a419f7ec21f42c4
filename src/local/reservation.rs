//! What reservations and persistent volumes make of resources. Pure.
//!
//! RESERVE, UNRESERVE, CREATE and DESTROY turn resources into others of the same amount: each is a
//! list of [`Conversion`]s, which the master applies to what it offered and the agent to what it has.
//!
//! Source: `src/common/resources_utils.cpp` and `src/common/resources.cpp` of Apache Mesos; the pages
//! "Reservation" and "Persistent Volumes" of its documentation.

use crate::mesos::v1::Resource;
use crate::mesos::v1::offer::{Operation, operation::Type};
use crate::mesos::v1::resource::{DiskInfo, reservation_info};

use super::resources::Resources;

/// One part of an operation: what it takes, and what that becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// Taken away.
    pub consumed: Resources,
    /// Put in its place.
    pub converted: Resources,
}

impl Conversion {
    /// Carries the conversion out.
    ///
    /// # Errors
    ///
    /// Mesos' sentence when not all of what it takes is there.
    pub fn apply(&self, resources: &Resources) -> Result<Resources, String> {
        if !resources.contains(&self.consumed) {
            return Err(format!("{resources} does not contain {}", self.consumed));
        }
        let mut result = resources.clone();
        result.subtract(&self.consumed);
        result.add(&self.converted);
        Ok(result)
    }

    /// The same for resources that are allocated to nobody, as an agent counts them.
    #[must_use]
    pub fn unallocated(&self) -> Self {
        Self {
            consumed: self.consumed.unallocated(),
            converted: self.converted.unallocated(),
        }
    }
}

/// Carries out one conversion after the other; all or none.
///
/// # Errors
///
/// Mesos' sentence for the first one that is not possible.
pub fn apply_all(conversions: &[Conversion], resources: &Resources) -> Result<Resources, String> {
    conversions
        .iter()
        .try_fold(resources.clone(), |left, conversion| {
            conversion.apply(&left)
        })
}

/// What an operation does to resources; nothing for one that does nothing to them.
pub fn conversions(operation: &Operation) -> Vec<Conversion> {
    match operation.r#type() {
        Type::Reserve => {
            let reserve = operation.reserve.clone().unwrap_or_default();
            vec![Conversion {
                consumed: popped(&reserve.resources),
                converted: Resources::new(&reserve.resources),
            }]
        }
        Type::Unreserve => {
            let unreserve = operation.unreserve.clone().unwrap_or_default();
            let each = unreserve.resources.iter();
            each.map(|reserved| Conversion {
                consumed: Resources::new([reserved]),
                converted: popped([reserved]),
            })
            .collect()
        }
        Type::Create => {
            let create = operation.create.clone().unwrap_or_default();
            let each = create.volumes.iter();
            each.map(|volume| Conversion {
                consumed: Resources::new([&stripped(volume)]),
                converted: Resources::new([volume]),
            })
            .collect()
        }
        Type::Destroy => {
            let destroy = operation.destroy.clone().unwrap_or_default();
            let each = destroy.volumes.iter();
            each.map(|volume| Conversion {
                consumed: Resources::new([volume]),
                converted: Resources::new([&stripped(volume)]),
            })
            .collect()
        }
        Type::Unknown
        | Type::Launch
        | Type::LaunchGroup
        | Type::GrowVolume
        | Type::ShrinkVolume
        | Type::CreateDisk
        | Type::DestroyDisk => Vec::new(),
    }
}

/// The same resources with their latest reservation undone.
fn popped<'a>(list: impl IntoIterator<Item = &'a Resource>) -> Resources {
    let mut list: Vec<Resource> = list.into_iter().cloned().collect();
    for one in &mut list {
        one.reservations.pop();
    }
    Resources::new(&list)
}

/// A volume as the plain disk that it was made of.
fn stripped(volume: &Resource) -> Resource {
    let mut plain = volume.clone();
    plain.disk = plain.disk.and_then(|disk| {
        disk.source.is_some().then_some(DiskInfo {
            persistence: None,
            volume: None,
            ..disk
        })
    });
    plain.shared = None;
    plain
}

/// The role that a resource is reserved for; none when anybody may have it.
pub fn role(one: &Resource) -> Option<&str> {
    one.reservations.last().map(|last| last.role())
}

/// True for a resource whose latest reservation was made by an operation.
pub fn is_dynamic(one: &Resource) -> bool {
    one.reservations
        .last()
        .is_some_and(|last| last.r#type() == reservation_info::Type::Dynamic)
}

/// The id of a persistent volume; none for anything else.
pub fn persistence_id(one: &Resource) -> Option<&str> {
    let persistence = one.disk.as_ref()?.persistence.as_ref()?;
    Some(&persistence.id)
}

/// The persistent volumes among resources.
pub fn volumes(resources: &Resources) -> Vec<Resource> {
    let list = resources.list().iter();
    list.filter(|one| persistence_id(one).is_some())
        .cloned()
        .collect()
}

/// What an agent has to remember, because its command line does not say it: everything that is
/// reserved.
pub fn remembered(resources: &Resources) -> Resources {
    Resources::new(resources.list().iter().filter(|one| is_dynamic(one)))
}

/// What an agent has when it starts: what its command line says, with what it remembers in place of
/// the plain resources that this was made of.
///
/// # Errors
///
/// Mesos' sentence when there is less than it remembers.
pub fn restored(stated: &Resources, remembered: &Resources) -> Result<Resources, String> {
    let mut plain: Vec<Resource> = remembered.list().iter().map(stripped).collect();
    for one in &mut plain {
        one.reservations.clear();
    }
    let conversion = Conversion {
        consumed: Resources::new(&plain),
        converted: remembered.clone(),
    };
    conversion.apply(stated)
}

/// Those that may be offered to a role: unreserved ones, and those reserved for the role itself or
/// for a role above it.
pub fn allocatable_to(resources: &Resources, to: &str) -> Resources {
    let fits = |one: &&Resource| {
        role(one).is_none_or(|role| {
            let below = to.strip_prefix(role);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    Resources::new(resources.list().iter().filter(fits))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::mesos::v1::offer::operation::{Create, Destroy, Reserve, Unreserve};
    use crate::mesos::v1::resource::{ReservationInfo, disk_info::Persistence};

    fn reserved(plain: &Resources, role: &str) -> Vec<Resource> {
        let mut list = plain.list().to_vec();
        for one in &mut list {
            one.reservations.push(ReservationInfo {
                r#type: Some(reservation_info::Type::Dynamic.into()),
                role: Some(role.to_owned()),
                principal: Some("p".to_owned()),
                labels: None,
            });
        }
        list
    }

    fn operation(kind: Type) -> Operation {
        Operation {
            r#type: Some(kind.into()),
            ..Default::default()
        }
    }

    fn machine() -> Resources {
        let mut all = Resources::scalar("cpus", 4.0);
        all.add(&Resources::scalar("disk", 100.0));
        all.add(&Resources::ports(10, 19));
        all
    }

    #[test]
    fn reserving_creating_destroying_and_unreserving_ends_where_it_began() {
        let all = machine();
        let mut part = Resources::scalar("disk", 30.0);
        part.add(&Resources::ports(12, 13));
        let reserve = Operation {
            reserve: Some(Reserve {
                resources: reserved(&part, "r"),
                source: Vec::new(),
            }),
            ..operation(Type::Reserve)
        };
        let after = apply_all(&conversions(&reserve), &all).unwrap();
        assert_eq!(
            after.to_string(),
            "cpus:4; disk:70; ports:[10-11, 14-19]; disk(reservations: [(DYNAMIC,r,p)]):30; \
             ports(reservations: [(DYNAMIC,r,p)]):[12-13]"
        );
        let mut volume = reserved(&Resources::scalar("disk", 30.0), "r").remove(0);
        volume.disk = Some(DiskInfo {
            persistence: Some(Persistence {
                id: "v".to_owned(),
                principal: None,
            }),
            ..Default::default()
        });
        let create = Operation {
            create: Some(Create {
                volumes: vec![volume.clone()],
            }),
            ..operation(Type::Create)
        };
        let with_volume = apply_all(&conversions(&create), &after).unwrap();
        assert_eq!(volumes(&with_volume), [volume.clone()]);
        // What the agent remembers gives the same again after its restart, and only on a machine
        // that has as much.
        let kept = remembered(&with_volume);
        let again = restored(&all, &kept).unwrap();
        assert!(again.contains(&with_volume) && with_volume.contains(&again));
        assert!(restored(&Resources::scalar("cpus", 4.0), &kept).is_err());

        let destroy = Operation {
            destroy: Some(Destroy {
                volumes: vec![volume],
            }),
            ..operation(Type::Destroy)
        };
        let without = apply_all(&conversions(&destroy), &with_volume).unwrap();
        assert!(apply_all(&conversions(&destroy), &without).is_err());
        let unreserve = Operation {
            unreserve: Some(Unreserve {
                resources: reserved(&part, "r"),
            }),
            ..operation(Type::Unreserve)
        };
        let end = apply_all(&conversions(&unreserve), &without).unwrap();
        assert!(end.contains(&all) && all.contains(&end));
    }

    #[test]
    fn a_refined_reservation_is_undone_one_step_at_a_time() {
        let base = Resources::new(&reserved(&Resources::scalar("cpus", 1.0), "r"));
        let refined = reserved(&base, "r/sub");
        let reserve = Operation {
            reserve: Some(Reserve {
                resources: refined.clone(),
                source: Vec::new(),
            }),
            ..operation(Type::Reserve)
        };
        let after = apply_all(&conversions(&reserve), &base).unwrap();
        assert!(allocatable_to(&after, "r").is_empty());
        assert!(!allocatable_to(&after, "r/sub").is_empty());
        assert!(allocatable_to(&base, "r/sub") == base && allocatable_to(&base, "ra").is_empty());
        let unreserve = Operation {
            unreserve: Some(Unreserve { resources: refined }),
            ..operation(Type::Unreserve)
        };
        assert_eq!(apply_all(&conversions(&unreserve), &after).unwrap(), base);
    }

    #[test]
    fn what_is_not_there_cannot_be_converted() {
        let reserve = Operation {
            reserve: Some(Reserve {
                resources: reserved(&Resources::scalar("cpus", 5.0), "r"),
                source: Vec::new(),
            }),
            ..operation(Type::Reserve)
        };
        assert_eq!(
            apply_all(&conversions(&reserve), &Resources::scalar("cpus", 4.0)),
            Err("cpus:4 does not contain cpus:5".to_owned())
        );
    }
}
