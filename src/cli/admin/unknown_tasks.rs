//! `cotton admin unknown-tasks`

use super::Context;
use crate::{
    cli::{Exit, output},
    cluster::unknown_task::{UnknownTask, WHAT_TO_DO},
    http::unknown_tasks::UnknownTasksAnswer,
};

/// Where they are listed.
const PATH: &str = "/unknown-tasks";

pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let answer: UnknownTasksAnswer = context.api.get(PATH).await?;
    if context.json {
        output::answer(serde_json::to_string_pretty(&answer)?)?;
        return Ok(Exit::Ok);
    }
    let tasks = &answer.unknown_tasks;
    if tasks.is_empty() {
        output::tell("every task that runs is explained by a record");
        return Ok(Exit::Ok);
    }
    let head = ["TASK", "STATE", "AGENT", "SINCE", "WHY"].map(String::from);
    let rows = std::iter::once(head.to_vec()).chain(tasks.iter().map(row));
    output::answer(output::table(&rows.collect::<Vec<_>>()))?;
    if answer.more > 0 {
        output::tell(format!("and {} more, which are not listed", answer.more));
    }
    output::tell(WHAT_TO_DO);
    Ok(Exit::Ok)
}

/// Says on stderr that there are unknown tasks, if there are. A scheduler of an earlier version has no such list.
pub(super) async fn complain(context: &Context) {
    let Ok(answer) = context.api.get::<UnknownTasksAnswer>(PATH).await else {
        return;
    };
    match answer.unknown_tasks.len() + answer.more {
        0 => {}
        1 => output::complain(
            "one task runs that no record explains; see cotton admin unknown-tasks",
        ),
        many => output::complain(&format!(
            "{many} tasks run that no record explains; see cotton admin unknown-tasks"
        )),
    }
}

fn row(task: &UnknownTask) -> Vec<String> {
    vec![
        task.task_id.to_string(),
        task.state.clone(),
        task.agent_id.clone().unwrap_or_else(|| "-".to_owned()),
        task.since.to_string(),
        task.reason.clone(),
    ]
}
