//! What service discovery says of one MySQL instance: the ServerSet protocol's ServiceInstance.
//!
//! The form is that of Twitter's `com.twitter.common.zookeeper.ServerSet` in its JSON codec, which
//! Finagle and twitter.commons read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The data of a discovery node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInstance {
    /// Always `ALIVE`: an instance that is not is not in discovery.
    pub status: Status,
    /// Where MySQL clients connect to.
    pub service_endpoint: Endpoint,
    /// Empty; consumers expect the key.
    #[serde(default)]
    pub additional_endpoints: BTreeMap<String, Endpoint>,
    /// The `server_id` of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
}

/// The state of a service instance in the ServerSet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It serves.
    Alive,
    /// Any other state of the protocol; Cotton writes none of them.
    #[serde(other)]
    Other,
}

/// A host name or address and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host as the Mesos agent names it.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl ServiceInstance {
    /// An instance that serves at `host:port`.
    pub fn alive(host: impl Into<String>, port: u16, server_id: u32) -> Self {
        Self {
            status: Status::Alive,
            service_endpoint: Endpoint {
                host: host.into(),
                port,
            },
            additional_endpoints: BTreeMap::new(),
            shard: Some(server_id),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn written_as_the_original_wrote_it() {
        let instance = ServiceInstance::alive("db7.example.com", 31007, 3);
        assert_eq!(
            serde_json::to_string(&instance).unwrap(),
            r#"{"status":"ALIVE","serviceEndpoint":{"host":"db7.example.com","port":31007},"additionalEndpoints":{},"shard":3}"#
        );
    }

    #[test]
    fn unknown_keys_are_ignored() {
        let text = r#"{"status":"ALIVE","serviceEndpoint":{"host":"a","port":1,"x":2},"weight":1}"#;
        let instance: ServiceInstance = serde_json::from_str(text).unwrap();
        assert_eq!(instance.shard, None);
    }
}
