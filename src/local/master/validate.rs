//! What is wrong with a call before it is looked at closely. Pure. The sentences are Mesos'.

use std::collections::BTreeSet;

use crate::mesos::v1::scheduler::{Call, call::Type};
use crate::mesos::v1::{FrameworkInfo, framework_info::capability::Type as Capability};

/// The longest id: that of a file name, because ids become directories.
const MAX_ID_BYTES: usize = 255;

/// Checks that a call has the parts that its type needs.
///
/// # Errors
///
/// The sentence that Mesos answers with.
pub fn call(call: &Call, principal: Option<&str>) -> Result<(), String> {
    let kind = match call.r#type.map(Type::try_from) {
        Some(Ok(kind)) if kind != Type::Unknown => kind,
        _ => return Err("Expecting 'type' to be present".to_owned()),
    };
    if kind == Type::Subscribe {
        return subscribe(call, principal);
    }
    if call.framework_id.is_none() {
        return Err("Expecting 'framework_id' to be present".to_owned());
    }
    let (part, present) = match kind {
        Type::Accept => ("accept", call.accept.is_some()),
        Type::Decline => ("decline", call.decline.is_some()),
        Type::AcceptInverseOffers => (
            "accept_inverse_offers",
            call.accept_inverse_offers.is_some(),
        ),
        Type::DeclineInverseOffers => (
            "decline_inverse_offers",
            call.decline_inverse_offers.is_some(),
        ),
        Type::Kill => ("kill", call.kill.is_some()),
        Type::Shutdown => ("shutdown", call.shutdown.is_some()),
        Type::Acknowledge => ("acknowledge", call.acknowledge.is_some()),
        Type::AcknowledgeOperationStatus => (
            "acknowledge_operation_status",
            call.acknowledge_operation_status.is_some(),
        ),
        Type::Reconcile => ("reconcile", call.reconcile.is_some()),
        Type::ReconcileOperations => ("reconcile_operations", call.reconcile_operations.is_some()),
        Type::Message => ("message", call.message.is_some()),
        Type::Request => ("request", call.request.is_some()),
        Type::UpdateFramework => ("update_framework", call.update_framework.is_some()),
        // Roles are optional for these, and so is the part that would name them.
        Type::Unknown | Type::Subscribe | Type::Teardown | Type::Revive | Type::Suppress => {
            ("", true)
        }
    };
    if !present {
        return Err(format!("Expecting '{part}' to be present"));
    }
    let uuid = call
        .acknowledge
        .as_ref()
        .filter(|_| kind == Type::Acknowledge);
    if uuid.is_some_and(|acknowledge| acknowledge.uuid.len() != 16) {
        return Err("Invalid UUID bytes".to_owned());
    }
    if kind == Type::AcknowledgeOperationStatus
        && let Some(acknowledge) = &call.acknowledge_operation_status
    {
        if acknowledge.uuid.len() != 16 {
            return Err("Invalid UUID bytes".to_owned());
        }
        if acknowledge.agent_id.is_none() {
            return Err("Expecting 'agent_id' to be present".to_owned());
        }
    }
    if kind == Type::UpdateFramework {
        let info = call
            .update_framework
            .as_ref()
            .map(|update| &update.framework_info);
        if info.and_then(|info| info.id.as_ref()) != call.framework_id.as_ref() {
            return Err(
                "'framework_id' differs from 'update_framework.framework_info.id'".to_owned(),
            );
        }
    }
    Ok(())
}

fn subscribe(call: &Call, principal: Option<&str>) -> Result<(), String> {
    let Some(subscribe) = &call.subscribe else {
        return Err("Expecting 'subscribe' to be present".to_owned());
    };
    let info = &subscribe.framework_info;
    if info.id != call.framework_id {
        return Err("'framework_id' differs from 'subscribe.framework_info.id'".to_owned());
    }
    match (principal, &info.principal) {
        (Some(known), Some(stated)) if known != stated => Err(format!(
            "Authenticated principal '{known}' does not match principal '{stated}' set in `FrameworkInfo`"
        )),
        _ => Ok(()),
    }
}

/// Checks what a framework says of itself.
///
/// # Errors
///
/// The sentence of the ERROR event that it gets.
pub fn framework(info: &FrameworkInfo, suppressed: &[String]) -> Result<(), String> {
    let multi = info
        .capabilities
        .iter()
        .any(|one| one.r#type() == Capability::MultiRole);
    #[allow(
        deprecated,
        reason = "frameworks without MULTI_ROLE state their role here"
    )]
    let single = info.role.as_ref();
    if multi && single.is_some() {
        return Err(
            "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
                .to_owned(),
        );
    }
    if !multi && !info.roles.is_empty() {
        return Err(
            "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
                .to_owned(),
        );
    }
    let mut roles = BTreeSet::new();
    for name in &info.roles {
        if !roles.insert(name) {
            return Err(format!(
                "'FrameworkInfo.roles' contains duplicate items: {name}"
            ));
        }
        role(name).map_err(|why| format!("'FrameworkInfo.roles' contains invalid role: {why}"))?;
    }
    if let Some(name) = single {
        role(name).map_err(|why| format!("'FrameworkInfo.role' is not a valid role: {why}"))?;
    }
    if let Some(id) = &info.id {
        self::id(&id.value).map_err(|why| format!("'FrameworkInfo.id' is invalid: {why}"))?;
    }
    let failover = info.failover_timeout();
    if !failover.is_finite() || failover < 0.0 {
        return Err(format!(
            "The framework failover_timeout ({failover}) is invalid"
        ));
    }
    let stray: Vec<_> = suppressed
        .iter()
        .filter(|name| multi && !roles.contains(name))
        .collect();
    if !stray.is_empty() {
        return Err(format!(
            "Suppressed roles {stray:?} are not contained in the set of roles"
        ));
    }
    Ok(())
}

/// Checks the name of a role.
///
/// # Errors
///
/// What is wrong with it.
pub fn role(name: &str) -> Result<(), String> {
    if name == "*" {
        return Ok(());
    }
    if name.is_empty() {
        return Err("Role names cannot be the empty string".to_owned());
    }
    if name.starts_with('/') {
        return Err(format!("Role '{name}' cannot start with a slash"));
    }
    if name.ends_with('/') {
        return Err(format!("Role '{name}' cannot end with a slash"));
    }
    if name.contains("//") {
        return Err(format!("Role '{name}' cannot contain two adjacent slashes"));
    }
    for part in name.split('/') {
        if [".", "..", "*"].contains(&part) {
            return Err(format!(
                "Role '{name}' cannot include '{part}' as a component"
            ));
        }
        if part.starts_with('-') {
            return Err(format!(
                "Role component '{part}' is invalid because it starts with a dash"
            ));
        }
        if part.contains(|letter: char| {
            letter.is_ascii_whitespace() || letter == '\x0b' || letter == '\x7f'
        }) {
            return Err(format!(
                "Role component '{part}' is invalid because it contains backspace or whitespace"
            ));
        }
    }
    Ok(())
}

/// Checks an id that a framework chose.
///
/// # Errors
///
/// What is wrong with it.
pub fn id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("ID must not be empty".to_owned());
    }
    if id.len() > MAX_ID_BYTES {
        return Err(format!(
            "ID must not be greater than {MAX_ID_BYTES} characters"
        ));
    }
    if id == "." || id == ".." {
        return Err(format!("'{id}' is disallowed"));
    }
    if id.contains(|letter: char| letter.is_ascii_control() || letter == '/' || letter == '\\') {
        return Err(format!("'{id}' contains invalid characters"));
    }
    Ok(())
}
