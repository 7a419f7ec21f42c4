//! The `cluster` part.
