//! What people ask the scheduler for.

use super::*;

impl World {
    pub fn create(&mut self, spec: ClusterSpec) -> Option<Reply> {
        self.create_from(spec, None)
    }

    pub fn create_from(&mut self, spec: ClusterSpec, restore: Option<Restore>) -> Option<Reply> {
        let fresh = FreshCluster {
            uuid: self.id(),
            password: Secret::new(PASSWORD),
            sealed_password: "sealed".into(),
            authentication: Authentication {
                mysql: "m".into(),
                mariadb: "*".into(),
            },
        };
        let token = RequestToken(1);
        let create = CreateRequest {
            restore,
            token,
            spec,
            given_password: None,
            fresh,
        };
        self.tell(Event::Create(Box::new(create)));
        self.replies.pop()
    }

    pub fn delete(&mut self, password: Option<&str>) -> Option<Reply> {
        let password = password.map(Secret::new);
        self.tell(Event::Delete {
            token: RequestToken(2),
            name: self.called.clone(),
            password,
        });
        self.replies.pop()
    }

    /// The deleted cluster is asked for, under another name if one is given.
    pub fn undelete(&mut self, password: Option<&str>, target: Option<&str>) -> Option<Reply> {
        self.tell(Event::Undelete(Box::new(UndeleteRequest {
            token: RequestToken(4),
            name: name(),
            target: target.map(|target| target.parse().unwrap()),
            incarnation: None,
            password: password.map(Secret::new),
        })));
        self.replies.pop()
    }

    /// An operator gives a slot up.
    pub fn reclaim(&mut self, slot: &SlotId) -> Option<Reply> {
        let slot = slot.clone();
        let token = RequestToken(5);
        self.tell(Event::Reclaim(Reclaim { token, slot }));
        self.replies.pop()
    }

    pub fn ask(&mut self, password: Option<&str>, wish: Wish) -> Option<Reply> {
        let password = password.map(Secret::new);
        self.tell(Event::Ask(Box::new(Ask {
            token: RequestToken(3),
            name: self.called.clone(),
            password,
            wish,
        })));
        self.replies.pop()
    }
}
