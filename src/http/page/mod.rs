//! The web page at `/`: what there is, for a person. Everything is in the one document, and every text in it
//! is escaped by the template.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::port::{SchedulerPort, Views};
use crate::cluster::{
    explanation::{Explanation, FailoverView},
    slot_view::{self, Left},
    unknown_task::{UnknownList, WHAT_TO_DO},
    view::{ClusterView, MemberView, Standing},
};

/// The page's styles; part of the document, so that nothing else has to be fetched.
const STYLE: &str = include_str!("style.css");

/// How many failovers of each cluster the page shows.
const SHOWN_FAILOVERS: usize = 3;

/// How often the page loads itself again, in seconds.
const REFRESH_SECONDS: u32 = 5;

/// Nothing but the document's own styles may be loaded, so a text that got past the escaping could not run.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";

/// `GET /`
pub(super) async fn index(State(port): State<SchedulerPort>) -> Response {
    let views = port.views.borrow().clone();
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, Html(render(&views).into_string())).into_response()
}

/// The document.
pub fn render(views: &Views) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_SECONDS);
                link rel="icon" href="data:,";
                title { "Cotton" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Cotton" }
                    p { "MySQL clusters on Mesos" }
                }
                main {
                    @if !views.connected {
                        p.notice role="status" {
                            "The scheduler is not connected to a Mesos master yet. Clusters that run go on; "
                            "new ones can be asked for as soon as it is."
                        }
                    }
                    @if !views.unknown_tasks.tasks.is_empty() { (unknown_tasks(&views.unknown_tasks)) }
                    @if views.left.orphans().next().is_some() { (orphans(&views.left)) }
                    @if !views.loaded {
                        p.notice role="status" {
                            "The scheduler has not read its state from ZooKeeper yet; the clusters are shown as soon as it has."
                        }
                    } @else if views.clusters.is_empty() {
                        (no_clusters())
                    }
                    @for (name, cluster) in &views.clusters {
                        (section(cluster, views.explanations.get(name).map(Arc::as_ref)))
                    }
                    @if !views.left.deleted.is_empty() { (deleted(&views.left)) }
                }
            }
        }
    }
}

/// Tasks that wait for an operator's decision.
fn unknown_tasks(list: &UnknownList) -> Markup {
    html! {
        section.notice id="unknown-tasks" role="status" {
            h2 { "Tasks that no record explains" }
            p { "An operator has to decide about them: " (WHAT_TO_DO) "." }
            table {
                thead { tr { th { "Task" } th { "State" } th { "Agent" } th { "Since" } th { "Why" } } }
                tbody { @for task in &list.tasks { tr {
                    td { code { (task.task_id) } }
                    td { (task.state) }
                    td { (task.agent_id.as_deref().unwrap_or("")) }
                    td.when { (task.since) }
                    td { (task.reason) }
                } } }
            }
            @if list.more > 0 { p { "And " (list.more) " more." } }
        }
    }
}

/// Slots that wait for an operator's decision.
fn orphans(left: &Left) -> Markup {
    html! {
        section.notice id="orphans" role="status" {
            h2 { "Slots that no record explains" }
            p { "An operator has to decide about them: " (slot_view::WHAT_TO_DO) "." }
            table {
                thead { tr { th { "Slot" } th { "Cluster" } th { "Host" } th { "Size" } th { "Since" } } }
                tbody { @for slot in left.orphans() { tr {
                    td { code { (slot.slot) } }
                    td { (slot.cluster) }
                    td { (slot.host) }
                    td { (slot.size) }
                    td.when { (slot.since) }
                } } }
            }
        }
    }
}

/// Deleted clusters that can be brought back, or whose slots are not gone yet.
fn deleted(left: &Left) -> Markup {
    html! {
        section id="deleted" {
            h2 { "Deleted clusters" }
            p { "Until its time is over, a deleted cluster comes back with " code { "cotton admin undelete NAME" } "." }
            table {
                thead { tr { th { "Name" } th { "User" } th { "Members" } th { "Deleted" } th { "Kept until" } th { "Incarnation" } } }
                tbody { @for cluster in &left.deleted { tr {
                    td { (cluster.name) }
                    td { (cluster.user) }
                    td { (cluster.num_nodes) }
                    td.when { (cluster.deleted_at) }
                    td.when { @if cluster.destroying { "being destroyed" } @else { (cluster.kept_until) } }
                    td { code { (cluster.incarnation) } }
                } } }
            }
        }
    }
}

fn no_clusters() -> Markup {
    html! {
        section {
            h2 { "No clusters yet" }
            p { "Make one:" }
            pre { "cotton admin create orders --user app --num-nodes 3 --api http://this-host:port" }
        }
    }
}

fn section(cluster: &ClusterView, explanation: Option<&Explanation>) -> Markup {
    let state = cluster.state.as_str();
    html! {
        section id=(format!("cluster-{}", cluster.name)) {
            h2 { (cluster.name) " " span class={ "state " (state) } { (state) } }
            @if !cluster.reason.is_empty() { p.reason { (cluster.reason) } }
            dl {
                dt { "Discovery" } dd { code { (cluster.cluster_url) } }
                dt { "User" } dd { (cluster.user) }
                dt { "Members" } dd { (cluster.num_nodes) ", each with " (cluster.size) }
                dt { "Server" } dd { (server(cluster)) }
                @if let Some(package) = &cluster.standing.package { dt { "Package" } dd { (package) } }
                @if let Some(time) = cluster.standing.replace_after { dt { "Replace after" } dd { (time) } }
                @if let Some(my_cnf) = &cluster.standing.my_cnf { dt { "my.cnf" } dd { pre { (my_cnf) } } }
                dt { "Durability" } dd {
                    (cluster.durability)
                    @if let Some(changing) = &cluster.standing.changing { " (" (changing) ")" }
                }
                dt { "Epoch" } dd { (cluster.epoch) }
            }
            table {
                thead { tr {
                    th { "Member" } th { "Role" } th { "State" } th { "Address" } th { "Votes" } th { "Agent" }
                } }
                tbody { @for member in &cluster.members { (row(member)) } }
            }
            (standing(&cluster.standing))
            @if let Some(explanation) = explanation { (why(explanation)) }
        }
    }
}

/// The failover with the loss of data that is offered, and the last one.
fn standing(standing: &Standing) -> Markup {
    html! {
        @if !standing.membership.is_empty() {
            h3 { "Members that come and go" }
            ul { @for told in &standing.membership { li { (told) } } }
        }
        @if let Some(backups) = &standing.backups {
            h3 { "Backups" }
            p { (backups.sentence(standing)) }
        }
        @if let Some(offer) = &standing.failover_offer {
            h3 { "If those missing never come back" }
            p { "An operator can give them up, and what only they hold:" }
            pre { (offer.command) }
            ul { @for told in offer.prospect.sentences() { li { (told) } } }
        }
        @if let Some(switchover) = &standing.switchover {
            h3 { "Switchover to member " (switchover.to) }
            p {
                "It was asked for at " (switchover.asked_at) ": "
                @match &switchover.outcome {
                    None => "it is under way.",
                    Some(outcome) => { (outcome.sentence) "." }
                }
            }
        }
        @if let Some(lossy) = &standing.lossy_failover {
            @match &lossy.outcome {
                None => {
                    h3 { "A failover with the loss of data is under way" }
                    p { "It was asked for at " (lossy.asked_at) "." }
                }
                Some(outcome) => {
                    h3 { "Data was given up" }
                    p { "It was asked for at " (lossy.asked_at) "." }
                    ul { @for told in outcome.sentences() { li { (told) } } }
                }
            }
        }
    }
}

/// What is waited for, and the last failovers.
fn why(explanation: &Explanation) -> Markup {
    let failovers = &explanation.failovers;
    html! {
        @for planned in &explanation.standing.maintenance { p.notice { (planned) } }
        @if let Some(waiting) = &explanation.waiting {
            h3 { @if waiting.blocked { "No writes until" } @else { "Waiting until" } }
            ul { @for end in &waiting.ends_when { li { (end) } } }
        }
        @if !failovers.is_empty() {
            h3 { "Last failovers" }
            table {
                thead { tr {
                    th { "Epoch" } th { "When" } th { "Who" } th { "Why" } th { "Reports" } th { "Without a master" }
                } }
                tbody { @for one in failovers.iter().take(SHOWN_FAILOVERS) { (failover(one)) } }
            }
            p.more {
                a href=(format!("/clusters/{}/explain", explanation.name)) { "With everything that is known of them" }
            }
        }
    }
}

fn failover(failover: &FailoverView) -> Markup {
    let record = &failover.record;
    html! {
        tr {
            td { (record.epoch) }
            td.when { (record.times.decided) }
            td { (failover.change()) }
            td { (record.ending.sentence) }
            td { (failover.counted) " of the " (record.quorum.needed) " needed" }
            td { @match failover.unpublished_millis {
                Some(millis) => { (millis) " ms" }
                None => "not over yet",
            } }
        }
    }
}

fn server(cluster: &ClusterView) -> String {
    match (&cluster.flavour, &cluster.version) {
        (Some(flavour), Some(version)) => format!("{flavour} {version}"),
        (Some(flavour), None) => flavour.to_string(),
        (None, _) => "not known yet".to_owned(),
    }
}

fn row(member: &MemberView) -> Markup {
    let address = match (&member.host, member.port) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "not placed yet".to_owned(),
    };
    let role = member.role.as_str();
    html! {
        tr {
            td { (member.id) }
            td class={ "role " (role) } { (role) }
            td { (member.state.as_str()) }
            td { code { (address) } }
            td { @if member.voter { "yes" } @else { "no" } }
            td { (member.agent_id.as_deref().unwrap_or("")) }
        }
    }
}
