//! `cotton admin list`

use super::Context;
use crate::{
    cli::{Exit, output},
    cluster::view::{ClusterView, MemberRole},
    http::clusters::ListAnswer,
};

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let answer: ListAnswer = context.api.get("/clusters").await?;
    if context.json {
        output::answer(serde_json::to_string_pretty(&answer)?)?;
    } else {
        let head = ["NAME", "STATE", "NODES", "MASTER", "SIZE"]
            .map(String::from)
            .to_vec();
        let rows: Vec<_> = std::iter::once(head)
            .chain(answer.clusters.iter().map(row))
            .collect();
        output::answer(output::table(&rows))?;
    }
    super::unknown_tasks::complain(context).await;
    Ok(Exit::Ok)
}

fn row(cluster: &ClusterView) -> Vec<String> {
    let master = cluster
        .members
        .iter()
        .find(|member| member.role == MemberRole::Master);
    vec![
        cluster.name.to_string(),
        cluster.state.as_str().to_owned(),
        cluster.num_nodes.to_string(),
        master.map_or_else(|| "-".to_owned(), super::show::address),
        cluster.size.to_string(),
    ]
}
