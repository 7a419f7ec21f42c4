//! The `zookeeper` part.
