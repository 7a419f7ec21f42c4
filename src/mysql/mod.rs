//! The `mysql` part.
