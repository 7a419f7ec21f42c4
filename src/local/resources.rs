//! Arithmetic on Mesos resources. Pure.
//!
//! Two resources can be added when everything but their amount is the same: name, role,
//! reservations, disk. Scalars are counted in thousandths, as Mesos does, so that 0.1 + 0.2 is 0.3.
//!
//! Source: "Mesos Attributes & Resources"; the text form is that of recorded status messages.

use std::fmt;

use crate::mesos::v1::{Attribute, Resource, resource, value};

/// A bag of resources, each kind at most once and none of them empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources(Vec<Resource>);

/// Why a text is no list of resources or attributes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{item}' is not of the form {expected}")]
pub struct ParseError {
    item: String,
    expected: &'static str,
}

/// The amount of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Amount {
    Thousandths(i64),
    /// Sorted, without overlap, both ends included.
    Ranges(Vec<(u64, u64)>),
    /// Sorted.
    Items(Vec<String>),
}

impl Resources {
    /// Sums up the resources of a message.
    pub fn new<'a>(list: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut sum = Self::default();
        for one in list {
            sum.add_one(one);
        }
        sum
    }

    /// A scalar without role or reservation.
    pub fn scalar(name: &str, amount: f64) -> Self {
        Self::new([&Resource {
            name: name.to_owned(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value: amount }),
            ..Default::default()
        }])
    }

    /// Ports from `begin` to `end`, both included.
    pub fn ports(begin: u64, end: u64) -> Self {
        Self::new([&Resource {
            name: "ports".to_owned(),
            r#type: value::Type::Ranges.into(),
            ranges: Some(value::Ranges {
                range: vec![value::Range { begin, end }],
            }),
            ..Default::default()
        }])
    }

    /// The list as messages carry it.
    pub fn list(&self) -> &[Resource] {
        &self.0
    }

    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum of all scalars of this name, whatever their reservations.
    pub fn total(&self, name: &str) -> f64 {
        let scalars = self.0.iter().filter(|one| one.name == name);
        scalars
            .filter_map(|one| one.scalar.as_ref())
            .map(|scalar| scalar.value)
            .sum()
    }

    /// True when every bit of `other` is in here.
    pub fn contains(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        other.0.iter().all(|one| rest.take(one))
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        for one in &other.0 {
            self.add_one(one);
        }
    }

    /// Takes away what is here of `other`.
    pub fn subtract(&mut self, other: &Self) {
        for one in &other.0 {
            self.take(one);
        }
    }

    /// The same resources allocated to a role.
    #[must_use]
    pub fn allocated(&self, role: &str) -> Self {
        self.with_allocation(Some(role))
    }

    /// The same resources as an agent counts them, allocated to nobody.
    #[must_use]
    pub fn unallocated(&self) -> Self {
        self.with_allocation(None)
    }

    fn with_allocation(&self, role: Option<&str>) -> Self {
        let mut list = self.0.clone();
        for one in &mut list {
            one.allocation_info = role.map(|role| resource::AllocationInfo {
                role: Some(role.to_owned()),
            });
        }
        Self::new(&list)
    }

    /// The same resources with ranges first, the order in which Mesos offers them.
    #[must_use]
    pub fn in_offer_order(&self) -> Self {
        let mut list = self.0.clone();
        list.sort_by_key(|one| one.ranges.is_none());
        Self(list)
    }

    fn add_one(&mut self, one: &Resource) {
        let amount = Amount::of(one);
        let kind = kind(one);
        match self.0.iter_mut().find(|held| kind == self::kind(held)) {
            Some(held) => {
                let sum = Amount::of(held).plus(amount);
                sum.write(held);
            }
            None if amount.is_zero() => {}
            None => {
                let mut added = one.clone();
                amount.write(&mut added);
                self.0.push(added);
            }
        }
    }

    /// Takes `one` away; false when not all of it was there.
    fn take(&mut self, one: &Resource) -> bool {
        let amount = Amount::of(one);
        if amount.is_zero() {
            return true;
        }
        let kind = kind(one);
        let Some(index) = self.0.iter().position(|held| kind == self::kind(held)) else {
            return false;
        };
        let (rest, whole) = Amount::of(&self.0[index]).minus(&amount);
        if rest.is_zero() {
            self.0.remove(index);
        } else {
            rest.write(&mut self.0[index]);
        }
        whole
    }
}

/// Everything of a resource but its amount.
fn kind(one: &Resource) -> Resource {
    Resource {
        scalar: None,
        ranges: None,
        set: None,
        ..one.clone()
    }
}

impl Amount {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "thousandths of any real machine fit"
    )]
    fn of(one: &Resource) -> Self {
        if let Some(ranges) = &one.ranges {
            let list = ranges
                .range
                .iter()
                .map(|range| (range.begin, range.end))
                .collect();
            return Self::Ranges(merged(list));
        }
        if let Some(set) = &one.set {
            let mut items = set.item.clone();
            items.sort();
            items.dedup();
            return Self::Items(items);
        }
        let value = one.scalar.as_ref().map_or(0.0, |scalar| scalar.value);
        Self::Thousandths((value * 1000.0).round() as i64)
    }

    fn is_zero(&self) -> bool {
        match self {
            Self::Thousandths(amount) => *amount <= 0,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Items(items) => items.is_empty(),
        }
    }

    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Thousandths(left), Self::Thousandths(right)) => {
                Self::Thousandths(left.saturating_add(right))
            }
            (Self::Ranges(mut left), Self::Ranges(right)) => {
                left.extend(right);
                Self::Ranges(merged(left))
            }
            (Self::Items(mut left), Self::Items(right)) => {
                left.extend(right);
                left.sort();
                left.dedup();
                Self::Items(left)
            }
            (left, _) => left,
        }
    }

    /// What is left, and whether all of `other` was there.
    fn minus(self, other: &Self) -> (Self, bool) {
        match (self, other) {
            (Self::Thousandths(left), Self::Thousandths(right)) => {
                (Self::Thousandths((left - right).max(0)), left >= *right)
            }
            (Self::Ranges(left), Self::Ranges(right)) => {
                let whole = right
                    .iter()
                    .all(|(begin, end)| left.iter().any(|(low, high)| low <= begin && end <= high));
                (Self::Ranges(cut(left, right)), whole)
            }
            (Self::Items(left), Self::Items(right)) => {
                let whole = right.iter().all(|item| left.contains(item));
                let rest = left
                    .into_iter()
                    .filter(|item| !right.contains(item))
                    .collect();
                (Self::Items(rest), whole)
            }
            (left, _) => (left, false),
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "thousandths of any real machine fit"
    )]
    fn write(self, one: &mut Resource) {
        match self {
            Self::Thousandths(amount) => {
                one.scalar = Some(value::Scalar {
                    value: amount as f64 / 1000.0,
                });
            }
            Self::Ranges(ranges) => {
                let range = |(begin, end)| value::Range { begin, end };
                one.ranges = Some(value::Ranges {
                    range: ranges.into_iter().map(range).collect(),
                });
            }
            Self::Items(item) => one.set = Some(value::Set { item }),
        }
    }
}

fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.retain(|(begin, end)| begin <= end);
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (begin, end) in ranges {
        match merged.last_mut() {
            Some(last) if begin <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged
}

fn cut(mut from: Vec<(u64, u64)>, holes: &[(u64, u64)]) -> Vec<(u64, u64)> {
    for (begin, end) in holes {
        let mut rest = Vec::with_capacity(from.len() + 1);
        for (low, high) in from {
            if high < *begin || *end < low {
                rest.push((low, high));
                continue;
            }
            if low < *begin {
                rest.push((low, begin - 1));
            }
            if *end < high {
                rest.push((end + 1, high));
            }
        }
        from = rest;
    }
    from
}

// === text ===

impl fmt::Display for Resources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            formatter.write_str(&text(one))?;
        }
        Ok(())
    }
}

/// One resource as Mesos writes it in sentences.
pub fn text(one: &Resource) -> String {
    let mut text = one.name.clone();
    if let Some(role) = one
        .allocation_info
        .as_ref()
        .and_then(|info| info.role.as_ref())
    {
        text.push_str(&format!("(allocated: {role})"));
    }
    if !one.reservations.is_empty() {
        let stack: Vec<_> = one.reservations.iter().map(reservation_text).collect();
        text.push_str(&format!("(reservations: [{}])", stack.join(", ")));
    }
    if let Some(disk) = &one.disk {
        let id = disk
            .persistence
            .as_ref()
            .map_or("", |persistence| &persistence.id);
        let path = disk
            .volume
            .as_ref()
            .map_or("", |volume| &volume.container_path);
        text.push_str(&format!("[{id}:{path}]"));
    }
    text.push(':');
    match Amount::of(one) {
        Amount::Thousandths(amount) => text.push_str(&thousandths_text(amount)),
        Amount::Ranges(ranges) => {
            let ranges: Vec<_> = ranges
                .iter()
                .map(|(low, high)| format!("{low}-{high}"))
                .collect();
            text.push_str(&format!("[{}]", ranges.join(", ")));
        }
        Amount::Items(items) => text.push_str(&format!("{{{}}}", items.join(", "))),
    }
    text
}

fn reservation_text(one: &resource::ReservationInfo) -> String {
    let mut parts = vec![one.r#type().as_str_name().to_owned(), one.role().to_owned()];
    parts.extend(one.principal.clone());
    if let Some(labels) = &one.labels {
        let pairs = labels.labels.iter();
        let pairs: Vec<_> = pairs
            .map(|label| format!("{}: {}", label.key, label.value()))
            .collect();
        parts.push(format!("{{{}}}", pairs.join(", ")));
    }
    format!("({})", parts.join(","))
}

fn thousandths_text(amount: i64) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let amount = amount.unsigned_abs();
    let text = format!("{sign}{}.{:03}", amount / 1000, amount % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads `begin-end,begin-end`, the ports of an agent.
///
/// # Errors
///
/// [`ParseError`] naming the part that is wrong.
pub fn parse_ports(text: &str) -> Result<Resources, ParseError> {
    let mut ports = Resources::default();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let error = || ParseError {
            item: item.to_owned(),
            expected: "begin-end, for example 31000-31999",
        };
        let (begin, end) = item.split_once('-').unwrap_or((item, item));
        let begin: u16 = begin.trim().parse().map_err(|_| error())?;
        let end: u16 = end.trim().parse().map_err(|_| error())?;
        if begin > end || begin == 0 {
            return Err(error());
        }
        ports.add(&Resources::ports(begin.into(), end.into()));
    }
    Ok(ports)
}

/// Reads `name:value;name:value`, the attributes of an agent; numbers become scalars.
///
/// # Errors
///
/// [`ParseError`] naming the part that is wrong.
pub fn parse_attributes(text: &str) -> Result<Vec<Attribute>, ParseError> {
    let mut attributes = Vec::new();
    for item in text
        .split(';')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let error = || ParseError {
            item: item.to_owned(),
            expected: "name:value, for example rack:r1",
        };
        let (name, value) = item.split_once(':').ok_or_else(error)?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || value.is_empty() {
            return Err(error());
        }
        let mut attribute = Attribute {
            name: name.to_owned(),
            ..Default::default()
        };
        match value.parse::<f64>() {
            Ok(value) => {
                attribute.set_type(value::Type::Scalar);
                attribute.scalar = Some(value::Scalar { value });
            }
            Err(_) => {
                attribute.set_type(value::Type::Text);
                attribute.text = Some(value::Text {
                    value: value.to_owned(),
                });
            }
        }
        attributes.push(attribute);
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    fn some(cpus: f64, ports: &[(u64, u64)]) -> Resources {
        let mut sum = Resources::scalar("cpus", cpus);
        for (begin, end) in ports {
            sum.add(&Resources::ports(*begin, *end));
        }
        sum
    }

    #[test]
    fn tenths_add_up() {
        let mut sum = some(0.1, &[]);
        sum.add(&some(0.2, &[]));
        assert_eq!(sum, some(0.3, &[]));
        sum.subtract(&some(0.3, &[]));
        assert!(sum.is_empty());
    }

    #[test]
    fn ports_are_cut_out_and_put_back() {
        let mut ports = some(1.0, &[(10, 19)]);
        ports.subtract(&some(0.0, &[(12, 12), (15, 19)]));
        assert_eq!(ports.to_string(), "cpus:1; ports:[10-11, 13-14]");
        assert!(!ports.contains(&some(0.0, &[(11, 12)])));
        ports.add(&some(0.0, &[(12, 12), (15, 19)]));
        assert_eq!(ports, some(1.0, &[(10, 19)]));
    }

    #[test]
    fn allocated_and_free_are_different_things() {
        let free = some(4000.1, &[(31000, 31000)]);
        let mine = free.allocated("cotton");
        assert_eq!(
            mine.to_string(),
            "cpus(allocated: cotton):4000.1; ports(allocated: cotton):[31000-31000]"
        );
        assert!(!free.contains(&mine));
        assert_eq!(mine.unallocated(), free);
    }

    #[test]
    fn operators_can_mistype() {
        assert!(parse_ports("1-2, 5").is_ok());
        assert!(parse_ports("2-1").is_err());
        assert!(parse_ports("0-1").is_err());
        assert!(parse_ports("a-b").is_err());
        assert_eq!(parse_attributes("rack:r1;level:3").unwrap().len(), 2);
        assert!(parse_attributes("rack").is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_can_be_given_back(
            cpus in 0_u32..5000, taken in 0_u32..5000, low in 1_u64..50, length in 0_u64..50,
        ) {
            let taken = taken.min(cpus);
            let whole = some(f64::from(cpus) / 1000.0, &[(1, 100)]);
            let part = some(f64::from(taken) / 1000.0, &[(low, low + length)]);
            prop_assert!(whole.contains(&part));
            let mut rest = whole.clone();
            rest.subtract(&part);
            prop_assert!(!rest.contains(&some(0.0, &[(low, low)])));
            rest.add(&part);
            prop_assert!(rest.contains(&whole) && whole.contains(&rest));
        }
    }
}
