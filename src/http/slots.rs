//! Slots: all that are known, and those that an administrator gives up.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    errors::ApiError,
    forms::Form,
    port::{ApiRequest, SchedulerPort},
};
use crate::cluster::{
    id::ClusterName,
    slot::SlotId,
    slot_view::{DeletedCluster, SlotView},
    spec::Fault,
};

/// The form fields of giving a slot up.
const RECLAIM_FIELDS: &[&str] = &["slot", "password"];

/// The answer to `GET /slots`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SlotsAnswer {
    /// The slots: of clusters by name, then of deleted ones, then those that no record explains.
    pub slots: Vec<SlotView>,
    /// The deleted clusters whose slots are not all gone, the one that was deleted last first.
    pub deleted_clusters: Vec<DeletedCluster>,
}

/// The answer to `POST /slots/reclaim`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReclaimAnswer {
    /// The slot. It is destroyed when its agent offers it.
    pub slot: SlotId,
    /// The cluster that it belonged to, by its record or its labels.
    pub cluster: ClusterName,
    /// The incarnation of that cluster.
    pub incarnation: Uuid,
    /// What is lost with it, as a sentence without its end.
    #[serde(default)]
    pub lost: String,
}

/// `GET /slots`
pub(super) async fn list(State(port): State<SchedulerPort>) -> Result<Json<SlotsAnswer>, ApiError> {
    let views = port.clusters()?;
    let living = views.slots.values().flat_map(|slots| slots.iter());
    Ok(Json(SlotsAnswer {
        slots: living.chain(&views.left.slots).cloned().collect(),
        deleted_clusters: views.left.deleted.clone(),
    }))
}

/// `POST /slots/reclaim`
pub(super) async fn reclaim(
    State(port): State<SchedulerPort>,
    request: Request,
) -> Result<Json<ReclaimAnswer>, ApiError> {
    let mut form = Form::read(request).await?;
    let password = form.take_secret("password");
    let slot = form.take("slot");
    let mut faults = form.into_faults(RECLAIM_FIELDS);
    if slot.is_none() {
        let sentence = "slot is missing: give the id of the slot, as GET /slots names it";
        faults.push(Fault::new("slot", sentence));
    }
    let slot = match slot {
        Some(slot) if faults.is_empty() => SlotId::from_wire(slot),
        _ => return Err(ApiError::Invalid(faults)),
    };
    // Of an orphan no record says whose it is; what else is kept is no owner's to throw away, but that of who runs the agents.
    match password {
        None => return Err(ApiError::AdministratorMissing),
        Some(given) if given != *port.administrator => return Err(ApiError::AdministratorWrong),
        Some(_) => {}
    }
    let reclaiming = port
        .ask(|reply| ApiRequest::Reclaim { slot, reply })
        .await?;
    Ok(Json(ReclaimAnswer {
        slot: reclaiming.slot,
        cluster: reclaiming.whose.cluster,
        incarnation: reclaiming.whose.incarnation,
        lost: reclaiming.lost,
    }))
}
