//! The `mesos` part.
