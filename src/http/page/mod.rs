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
use crate::cluster::view::{ClusterView, MemberView};

/// The page's styles; part of the document, so that nothing else has to be fetched.
const STYLE: &str = include_str!("style.css");

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
                    @if !views.loaded {
                        p.notice role="status" {
                            "The scheduler has not read its state from ZooKeeper yet; the clusters are shown as soon as it has."
                        }
                    } @else if views.clusters.is_empty() {
                        (no_clusters())
                    }
                    @for cluster in views.clusters.values() { (section(cluster)) }
                }
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

fn section(cluster: &Arc<ClusterView>) -> Markup {
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
                dt { "Durability" } dd { (cluster.durability) }
                dt { "Epoch" } dd { (cluster.epoch) }
            }
            table {
                thead { tr {
                    th { "Member" } th { "Role" } th { "State" } th { "Address" } th { "Votes" } th { "Agent" }
                } }
                tbody { @for member in &cluster.members { (row(member)) } }
            }
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
