//! The `executor` part.

pub mod mysqld;
pub mod promise;
pub mod sandbox;
