//! The vocabulary: what clusters, members and positions are, without any I/O, clock or chance.

pub mod backup;
pub mod backup_rules;
pub mod change;
pub mod configuration;
pub mod control;
pub mod data_loss;
pub mod donor;
pub mod explanation;
pub mod failover_record;
pub mod flavour;
pub mod gtid;
pub mod id;
pub mod membership;
pub mod record;
pub mod retained;
pub mod service_instance;
pub mod size;
pub mod slot;
pub mod slot_view;
pub mod spec;
pub mod switchover;
pub mod timings;
pub mod unknown_task;
pub mod user_name;
pub mod verification;
pub mod view;
pub mod voters;

/// Whether a value is the one that is read where none is stored, and need not be stored.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
