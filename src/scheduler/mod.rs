//! The `scheduler` part.
