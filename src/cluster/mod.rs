//! The vocabulary: what clusters, members and positions are, without any I/O, clock or chance.

pub mod control;
pub mod flavour;
pub mod gtid;
pub mod id;
pub mod service_instance;
pub mod voters;
