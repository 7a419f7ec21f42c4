//! The `http` part.
