//! What of a cluster is published, and the operations that publish something else: pure.
//!
//! A goal and the discovery nodes follow from a cluster's record. Only what differs from what is
//! there is written, so that no watch fires without a change.

use std::collections::BTreeMap;

use super::acl::Acls;
use super::document::json;
use super::operations::Op;
use super::paths;
use crate::cluster::id::{ClusterName, MemberId};
use crate::cluster::record::ClusterRecord;
use crate::cluster::service_instance::ServiceInstance;

/// The nodes of one of the two discovery groups by name, with their data.
type Group = BTreeMap<String, Vec<u8>>;

/// A cluster's goal and discovery nodes. `None` and `false`: there is no such node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// Whether the parent of goal and reports exists.
    pub control: bool,
    /// Whether the parent of the reports exists.
    pub members: bool,
    /// The goal.
    pub goal: Option<Vec<u8>>,
    /// Whether the parent of the two groups exists.
    pub discover: bool,
    /// The group of the master.
    pub master: Option<Group>,
    /// The group of the slaves.
    pub slaves: Option<Group>,
}

impl Published {
    /// What a record means.
    pub fn of(record: &ClusterRecord) -> Self {
        let discovery = record.discovery();
        Self {
            control: true,
            members: true,
            goal: Some(json(&record.goal())),
            discover: true,
            master: Some(
                discovery
                    .master
                    .iter()
                    .map(|(id, at)| node(*id, at))
                    .collect(),
            ),
            slaves: Some(
                discovery
                    .slaves
                    .iter()
                    .map(|(id, at)| node(*id, at))
                    .collect(),
            ),
        }
    }
}

fn node(member: MemberId, instance: &ServiceInstance) -> (String, Vec<u8>) {
    (member.node_name(), json(instance))
}

/// The operations that turn `from` into `to`, to be carried out in one transaction.
///
/// A member that becomes the master is deleted from one group and created in the other; deletions
/// come first, so that no point in the order has two masters.
pub fn operations(cluster: &ClusterName, from: &Published, to: &Published, acls: &Acls) -> Vec<Op> {
    let mut ops = Vec::new();
    if !from.control {
        ops.push(Op::create(paths::control(cluster), "", &acls.control));
    }
    if !from.members {
        ops.push(Op::create(paths::members(cluster), "", &acls.members));
    }
    match (&from.goal, &to.goal) {
        (None, Some(goal)) => ops.push(Op::create(
            paths::goal(cluster),
            goal.clone(),
            &acls.control,
        )),
        (Some(old), Some(new)) if old != new => ops.push(set(paths::goal(cluster), new)),
        _ => {}
    }
    if !from.discover {
        ops.push(Op::create(paths::discover(cluster), "", &acls.discovery));
    }
    let groups = [
        (paths::master(cluster), &from.master, &to.master),
        (paths::slaves(cluster), &from.slaves, &to.slaves),
    ];
    for (path, from, _) in &groups {
        if from.is_none() {
            ops.push(Op::create(path.clone(), "", &acls.discovery));
        }
    }
    let empty = Group::new();
    let groups = groups.map(|(path, from, to)| {
        (
            path,
            from.as_ref().unwrap_or(&empty),
            to.as_ref().unwrap_or(&empty),
        )
    });
    for (path, from, to) in &groups {
        let leaving = from.keys().filter(|name| !to.contains_key(*name));
        ops.extend(leaving.map(|name| Op::delete(format!("{path}/{name}"))));
    }
    for (path, from, to) in &groups {
        for (name, data) in *to {
            let path = format!("{path}/{name}");
            match from.get(name) {
                None => ops.push(Op::create(path, data.clone(), &acls.discovery)),
                Some(old) if old != data => ops.push(set(path, data)),
                Some(_) => {}
            }
        }
    }
    ops
}

/// The operations that take everything away, `reports` included, children before their parents.
pub fn removal(cluster: &ClusterName, from: &Published, reports: &[String]) -> Vec<Op> {
    let mut ops = Vec::new();
    if from.goal.is_some() {
        ops.push(Op::delete(paths::goal(cluster)));
    }
    let members = paths::members(cluster);
    ops.extend(
        reports
            .iter()
            .map(|report| Op::delete(format!("{members}/{report}"))),
    );
    if from.members {
        ops.push(Op::delete(members));
    }
    if from.control {
        ops.push(Op::delete(paths::control(cluster)));
    }
    for (path, group) in [
        (paths::master(cluster), &from.master),
        (paths::slaves(cluster), &from.slaves),
    ] {
        let Some(group) = group else { continue };
        ops.extend(
            group
                .keys()
                .map(|name| Op::delete(format!("{path}/{name}"))),
        );
        ops.push(Op::delete(path));
    }
    if from.discover {
        ops.push(Op::delete(paths::discover(cluster)));
    }
    ops
}

fn set(path: String, data: &[u8]) -> Op {
    Op::Set {
        path,
        data: data.to_vec(),
        version: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn published(master: &[(&str, &str)], slaves: &[(&str, &str)]) -> Published {
        let group = |nodes: &[(&str, &str)]| {
            Some(
                nodes
                    .iter()
                    .map(|(name, data)| (name.to_string(), data.as_bytes().to_vec()))
                    .collect(),
            )
        };
        Published {
            control: true,
            members: true,
            goal: Some(b"goal".to_vec()),
            discover: true,
            master: group(master),
            slaves: group(slaves),
        }
    }

    fn steps(from: &Published, to: &Published) -> Vec<String> {
        let step = |op: &Op| match op {
            Op::Check { path, .. } => format!("check {path}"),
            Op::Create { path, .. } => format!("create {path}"),
            Op::Set { path, .. } => format!("set {path}"),
            Op::Delete { path, .. } => format!("delete {path}"),
        };
        operations(&"c".parse().unwrap(), from, to, &Acls::open())
            .iter()
            .map(step)
            .collect()
    }

    #[test]
    fn a_first_publication_makes_the_parents_first() {
        let to = published(&[], &[("member_1", "a")]);
        assert_eq!(
            steps(&Published::default(), &to),
            [
                "create /control/c",
                "create /control/c/members",
                "create /control/c/goal",
                "create /discover/c",
                "create /discover/c/master",
                "create /discover/c/slaves",
                "create /discover/c/slaves/member_1",
            ]
        );
    }

    #[test]
    fn a_failover_deletes_before_it_creates_and_leaves_the_rest_alone() {
        let from = published(
            &[("member_0", "a")],
            &[("member_1", "b"), ("member_2", "c")],
        );
        let to = published(&[("member_1", "b")], &[("member_2", "c")]);
        assert_eq!(
            steps(&from, &to),
            [
                "delete /discover/c/master/member_0",
                "delete /discover/c/slaves/member_1",
                "create /discover/c/master/member_1",
            ]
        );
    }

    #[test]
    fn nothing_is_written_without_a_change() {
        let same = published(&[("member_0", "a")], &[("member_1", "b")]);
        assert!(steps(&same, &same).is_empty());
    }

    #[test]
    fn changed_data_is_set_in_place() {
        let from = published(&[("member_0", "a")], &[]);
        let mut to = published(&[("member_0", "b")], &[]);
        to.goal = Some(b"next".to_vec());
        assert_eq!(
            steps(&from, &to),
            ["set /control/c/goal", "set /discover/c/master/member_0"]
        );
    }

    #[test]
    fn removal_takes_children_before_parents() {
        let from = published(&[("member_0", "a")], &[]);
        let ops = removal(&"c".parse().unwrap(), &from, &["t1".to_owned()]);
        let paths: Vec<&str> = ops
            .iter()
            .map(|op| match op {
                Op::Delete { path, .. } => path.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            paths,
            [
                "/control/c/goal",
                "/control/c/members/t1",
                "/control/c/members",
                "/control/c",
                "/discover/c/master/member_0",
                "/discover/c/master",
                "/discover/c/slaves",
                "/discover/c",
            ]
        );
    }
}
