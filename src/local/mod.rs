//! The `local` part.
