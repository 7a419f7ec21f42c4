//! Where agents and masters are, as their arguments say it: a region, and a zone in it.

use crate::mesos::v1::DomainInfo;
use crate::mesos::v1::domain_info::FaultDomain;
use crate::mesos::v1::domain_info::fault_domain::{RegionInfo, ZoneInfo};

/// Why a text is no fault domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not of the form region/zone, for example eu/a")]
pub struct ParseError(String);

/// Reads `region/zone`.
///
/// # Errors
///
/// [`ParseError`] when one of them is missing.
pub fn parse(text: &str) -> Result<DomainInfo, ParseError> {
    let error = || ParseError(text.to_owned());
    let (region, zone) = text.split_once('/').ok_or_else(error)?;
    if region.is_empty() || zone.is_empty() || zone.contains('/') {
        return Err(error());
    }
    let fault_domain = FaultDomain {
        region: RegionInfo {
            name: region.to_owned(),
        },
        zone: ZoneInfo {
            name: zone.to_owned(),
        },
    };
    Ok(DomainInfo {
        fault_domain: Some(fault_domain),
    })
}

/// The name of the region, if it is known.
pub fn region(domain: Option<&DomainInfo>) -> Option<&str> {
    let fault_domain = domain?.fault_domain.as_ref()?;
    Some(&fault_domain.region.name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_region_and_a_zone_are_needed() {
        let domain = parse("eu/a").unwrap();
        assert_eq!(region(Some(&domain)), Some("eu"));
        assert_eq!(domain.fault_domain.unwrap().zone.name, "a");
        for text in ["", "eu", "eu/", "/a", "eu/a/b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
