//! Who may do what with Cotton's nodes.
//!
//! ZooKeeper checks the permissions of one node only, never those of the nodes above it, except that
//! creating and deleting need a permission of the parent. Three identities take part: Cotton's (the
//! one in `--zk-url`), the executors' (`--executor-zk-keypath`) and, where discovery must not be
//! read by everybody, a reader's (`--zk-reader`). The scheduler's session carries both its own and
//! the executors' identity, which is how it reads reports that executors alone have written.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest as _, Sha1};
use zookeeper_client::{Acl, AuthId, Permission};

use super::url::Credentials;

/// The access lists of each kind of node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acls {
    /// The URL's path itself and the groups directly below it.
    pub root: Vec<Acl>,
    /// Records, which hold sealed passwords, and the fence: Cotton alone.
    pub state: Vec<Acl>,
    /// Goals and the nodes above them: written by Cotton, read by executors.
    pub control: Vec<Acl>,
    /// The parent of a cluster's reports: executors create and delete below it.
    pub members: Vec<Acl>,
    /// A report: the executors' own.
    pub report: Vec<Acl>,
    /// Discovery: written by Cotton, read by everybody or by the reader.
    pub discovery: Vec<Acl>,
}

impl Acls {
    /// No identities: everybody may do everything. The caller warns of it.
    pub fn open() -> Self {
        let anyone = vec![Acl::new(Permission::ALL, AuthId::anyone())];
        Self {
            root: anyone.clone(),
            state: anyone.clone(),
            control: anyone.clone(),
            members: anyone.clone(),
            report: anyone.clone(),
            discovery: anyone,
        }
    }

    /// Lists for the three identities. Without a `reader`, everybody reads discovery.
    pub fn closed(
        cotton: &Credentials,
        executor: &Credentials,
        reader: Option<&Credentials>,
    ) -> Self {
        let owner = Acl::new(Permission::ALL, digest_id(cotton));
        let executor = |permission| Acl::new(permission, digest_id(executor));
        let below = Permission::READ | Permission::CREATE | Permission::DELETE;
        let discovery_reader = reader.map_or_else(AuthId::anyone, digest_id);
        Self {
            root: vec![owner.clone(), Acl::new(Permission::READ, AuthId::anyone())],
            state: vec![owner.clone()],
            control: vec![owner.clone(), executor(Permission::READ)],
            members: vec![owner.clone(), executor(below)],
            report: Self::report(executor(Permission::ALL)),
            discovery: vec![owner, Acl::new(Permission::READ, discovery_reader)],
        }
    }

    /// The list of a report, as an executor makes it: its own identity, or open without one.
    pub fn of_reports(executor: Option<&Credentials>) -> Vec<Acl> {
        match executor {
            Some(identity) => Self::report(Acl::new(Permission::ALL, digest_id(identity))),
            None => Self::open().report,
        }
    }

    fn report(executor: Acl) -> Vec<Acl> {
        vec![executor]
    }
}

/// `user:base64(sha1(user:password))`, as `DigestAuthenticationProvider.generateDigest` makes it.
fn digest_id(credentials: &Credentials) -> AuthId {
    let Credentials { user, password } = credentials;
    let hash = Sha1::digest(format!("{user}:{}", password.expose()));
    AuthId::new(
        "digest",
        &format!("{user}:{}", BASE64_STANDARD.encode(hash)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_digest_is_zookeepers() {
        // From the ZooKeeper Programmer's Guide's tool: DigestAuthenticationProvider super:test.
        let credentials = Credentials {
            user: "super".to_owned(),
            password: Secret::new("test"),
        };
        assert_eq!(
            digest_id(&credentials).id(),
            "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
        );
    }
}
