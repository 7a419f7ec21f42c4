//! The `cli` part.
