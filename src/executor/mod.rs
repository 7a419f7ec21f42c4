//! The `executor` part.
