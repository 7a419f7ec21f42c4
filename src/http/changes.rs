//! What is asked of a cluster that is there: other settings, a pause, another master, more members, fewer or others, and a failover
//! with the loss of data; and of one that was deleted: that it comes back.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    backups,
    clusters::{known_name, name_in},
    errors::ApiError,
    forms::Form,
    port::{ApiRequest, SchedulerPort},
};
use crate::cluster::{
    change::{Change, ChangeRequest, Changed, Course},
    data_loss::Prospect,
    id::{ClusterName, MemberId},
    spec::{self, Fault},
    switchover::Switchover,
    voters::Durability,
};

/// The form fields of a change.
const CHANGE_FIELDS: &[&str] = &[
    "password",
    "durability",
    "replace_after",
    "backup_schedule",
    "backup_keep",
    "size",
    "cpus",
    "mem",
    "disk",
    "my_cnf",
    "package",
    "force",
    "plan",
];

/// The form fields of a pause, and of its end.
const PAUSE_FIELDS: &[&str] = &["password"];

/// The form fields of a switchover.
const SWITCHOVER_FIELDS: &[&str] = &["password", "to"];

/// The form fields of a number of members.
const SCALE_FIELDS: &[&str] = &["password", "num_nodes"];

/// The form fields of a replacement.
const REPLACE_FIELDS: &[&str] = &["password", "member"];

/// The form fields of a failover.
const FAILOVER_FIELDS: &[&str] = &["password", "accept_data_loss"];

/// The answer to a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// What differs from before; nothing if it was so already.
    pub changed: Vec<Changed>,
    /// What follows for the members, if size, settings or package were given.
    #[serde(flatten)]
    pub course: Course,
}

/// The form fields of bringing a cluster back.
const UNDELETE_FIELDS: &[&str] = &["password", "as", "incarnation"];

/// The answer to bringing a deleted cluster back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UndeleteAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The cluster's incarnation, which is the one that it had.
    pub incarnation: Uuid,
}

/// The answer to a switchover.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwitchoverAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// Who is to be master.
    pub to: MemberId,
    /// The switchover. Its outcome is in `switchover` of `GET /clusters/<name>`, under the same number. It is missing if that
    /// member is the master already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Switchover>,
}

/// The answer to a number of members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScaleAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// How many members there are to be.
    pub num_nodes: u32,
    /// How many there were to be before.
    pub from: u32,
    /// What an acknowledged write is worth. The number of members does not change it.
    pub durability: Durability,
}

/// The answer to a replacement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplaceAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// The member that is to leave.
    pub member: MemberId,
    /// The one that takes its place. It is missing if fewer members are wanted by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<MemberId>,
}

/// The answer to a failover with the loss of data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailoverAnswer {
    /// Where clients find master and slaves.
    pub cluster_url: String,
    /// What it comes to, as things stand. The outcome is in `lossy_failover` of `GET /clusters/<name>`.
    #[serde(flatten)]
    pub prospect: Prospect,
}

/// `PATCH /clusters/<name>`
pub(super) async fn change(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ChangeAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let request = ChangeRequest {
        durability: form.take("durability"),
        replace_after: form.take("replace_after"),
        backup_schedule: form.take("backup_schedule"),
        backup_keep: form.take("backup_keep"),
        size: form.take("size"),
        cpus: form.take("cpus"),
        mem: form.take("mem"),
        disk: form.take("disk"),
        my_cnf: form.take("my_cnf"),
        package: form.take("package"),
        force: form.take("force"),
        plan: form.take("plan"),
    };
    let rules = [
        ("backup_schedule", request.backup_schedule.is_some()),
        ("backup_keep", request.backup_keep.is_some()),
    ];
    let mut faults = form.into_faults(CHANGE_FIELDS);
    faults.extend(backups::rules_without_store(&port, rules));
    let change = match Change::check(request) {
        Ok(change) if faults.is_empty() => change,
        checked => {
            faults.extend(checked.err().unwrap_or_default());
            return Err(ApiError::Invalid(faults));
        }
    };
    let changing = port
        .ask(|reply| ApiRequest::Change {
            name,
            password,
            change,
            reply,
        })
        .await?;
    Ok(Json(ChangeAnswer {
        cluster_url: changing.cluster_url,
        changed: changing.changed,
        course: changing.course,
    }))
}

/// `POST /clusters/<name>/pause`
pub(super) async fn pause(
    port: State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ChangeAnswer>, ApiError> {
    set_paused(port, path, request, true).await
}

/// `POST /clusters/<name>/resume`
pub(super) async fn resume(
    port: State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ChangeAnswer>, ApiError> {
    set_paused(port, path, request, false).await
}

async fn set_paused(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
    paused: bool,
) -> Result<Json<ChangeAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let faults = form.into_faults(PAUSE_FIELDS);
    if !faults.is_empty() {
        return Err(ApiError::Invalid(faults));
    }
    let changing = port
        .ask(|reply| ApiRequest::Pause {
            name,
            password,
            paused,
            reply,
        })
        .await?;
    Ok(Json(ChangeAnswer {
        cluster_url: changing.cluster_url,
        changed: changing.changed,
        course: changing.course,
    }))
}

/// `POST /clusters/<name>/switchover`
pub(super) async fn switchover(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<SwitchoverAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let target = read_member("to", form.take("to").as_deref());
    let mut faults = form.into_faults(SWITCHOVER_FIELDS);
    let to = match target {
        Ok(to) if faults.is_empty() => to,
        target => {
            faults.extend(target.err());
            return Err(ApiError::Invalid(faults));
        }
    };
    let switching_over = port
        .ask(|reply| ApiRequest::Switchover {
            name,
            password,
            to,
            reply,
        })
        .await?;
    Ok(Json(SwitchoverAnswer {
        cluster_url: switching_over.cluster_url,
        to: switching_over.to,
        switchover: switching_over.switchover,
    }))
}

pub(super) fn read_member(field: &str, text: Option<&str>) -> Result<Option<MemberId>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let number = text.parse().map(|number| Some(MemberId(number)));
    let detail = format!("{field} must be the number of a member, such as 1");
    number.map_err(|_| Fault::new(field, detail))
}

/// `PUT /clusters/<name>`
pub(super) async fn scale(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ScaleAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let number = form.take("num_nodes");
    let number = number
        .ok_or_else(|| "num_nodes is missing: say how many members there are to be".to_owned());
    let number = number.and_then(|text| spec::parse_num_nodes(&text));
    let mut faults = form.into_faults(SCALE_FIELDS);
    let num_nodes = match number {
        Ok(number) if faults.is_empty() => number,
        number => {
            faults.extend(number.err().map(|detail| Fault::new("num_nodes", detail)));
            return Err(ApiError::Invalid(faults));
        }
    };
    let scaling = port
        .ask(|reply| ApiRequest::Scale {
            name,
            password,
            num_nodes,
            reply,
        })
        .await?;
    Ok(Json(ScaleAnswer {
        cluster_url: scaling.cluster_url,
        num_nodes: scaling.to,
        from: scaling.from,
        durability: scaling.durability,
    }))
}

/// `POST /clusters/<name>/replace`
pub(super) async fn replace(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ReplaceAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let member = read_member("member", form.take("member").as_deref());
    let member = member.and_then(|member| {
        let missing = "member is missing: give the number of the member that is to leave";
        member.ok_or_else(|| Fault::new("member", missing))
    });
    let mut faults = form.into_faults(REPLACE_FIELDS);
    let member = match member {
        Ok(member) if faults.is_empty() => member,
        member => {
            faults.extend(member.err());
            return Err(ApiError::Invalid(faults));
        }
    };
    let replacing = port
        .ask(|reply| ApiRequest::Replace {
            name,
            password,
            member,
            reply,
        })
        .await?;
    Ok(Json(ReplaceAnswer {
        cluster_url: replacing.cluster_url,
        member: replacing.member,
        replacement: replacing.replacement,
    }))
}

/// `POST /clusters/<name>/failover`
pub(super) async fn failover(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<FailoverAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let accepted = read_accepted(form.take("accept_data_loss").as_deref());
    let mut faults = form.into_faults(FAILOVER_FIELDS);
    let accept_data_loss = match accepted {
        Ok(accepted) if faults.is_empty() => accepted,
        accepted => {
            faults.extend(accepted.err());
            return Err(ApiError::Invalid(faults));
        }
    };
    let failing_over = port
        .ask(|reply| ApiRequest::Failover {
            name,
            password,
            accept_data_loss,
            reply,
        })
        .await?;
    Ok(Json(FailoverAnswer {
        cluster_url: failing_over.cluster_url,
        prospect: failing_over.prospect,
    }))
}

fn read_accepted(text: Option<&str>) -> Result<bool, Fault> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Fault::new(
            "accept_data_loss",
            "accept_data_loss must be true or false",
        )),
    }
}

/// `POST /clusters/<name>/undelete`
pub(super) async fn undelete(
    State(port): State<SchedulerPort>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<UndeleteAnswer>, ApiError> {
    let name = known_name(name_in(path)?)?;
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let target = read_name(form.take("as"));
    let incarnation = read_incarnation(form.take("incarnation").as_deref());
    let mut faults = form.into_faults(UNDELETE_FIELDS);
    let (target, incarnation) = match (target, incarnation) {
        (Ok(target), Ok(incarnation)) if faults.is_empty() => (target, incarnation),
        (target, incarnation) => {
            faults.extend(target.err());
            faults.extend(incarnation.err());
            return Err(ApiError::Invalid(faults));
        }
    };
    let undeleting = port
        .ask(|reply| ApiRequest::Undelete {
            name,
            password,
            target,
            incarnation,
            reply,
        })
        .await?;
    Ok(Json(UndeleteAnswer {
        cluster_url: undeleting.cluster_url,
        incarnation: undeleting.incarnation,
    }))
}

fn read_name(text: Option<String>) -> Result<Option<ClusterName>, Fault> {
    let name = text.map(|text| text.parse::<ClusterName>());
    name.transpose()
        .map_err(|invalid| Fault::new("as", invalid.to_string()))
}

fn read_incarnation(text: Option<&str>) -> Result<Option<Uuid>, Fault> {
    let incarnation = text.map(str::parse::<Uuid>);
    incarnation.transpose().map_err(|_| {
        let sentence = "incarnation must be that of a deleted cluster, as GET /slots names it";
        Fault::new("incarnation", sentence)
    })
}
