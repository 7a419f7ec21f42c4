//! The door: each request of the API becomes an event, and whatever is random in it is drawn here, so that nothing behind it
//! draws.

use uuid::Uuid;

use super::{
    driver::Door,
    event::{
        Ask, CreateRequest, Event, FreshCluster, Reclaim, RequestToken, UndeleteRequest, Wish,
    },
    execute::Waiting,
};
use crate::{
    cluster::{control::Authentication, id::ClusterName},
    http::port::ApiRequest,
    secret::Secret,
    zookeeper::seal::{self, Key},
};

/// The length of a password that Cotton makes: 21 letters and digits, as the original's.
const PASSWORD_LENGTH: usize = 21;

/// Opens it; passwords are sealed with the key.
pub(super) fn door(key: Key) -> Door {
    Box::new(move |token, request| match request {
        ApiRequest::Create {
            spec,
            password,
            restore,
            reply,
        } => {
            let given_password = password;
            let password = given_password.clone().unwrap_or_else(new_password);
            let fresh = FreshCluster {
                uuid: Uuid::new_v4(),
                sealed_password: seal::seal(&key, &password, rand::random()),
                authentication: Authentication::of(&password, rand::random()),
                password,
            };
            let create = CreateRequest {
                token,
                spec,
                given_password,
                restore: restore.map(|restore| *restore),
                fresh,
            };
            (Event::Create(Box::new(create)), Waiting::Create(reply))
        }
        ApiRequest::Delete {
            name,
            password,
            reply,
        } => (
            Event::Delete {
                token,
                name,
                password,
            },
            Waiting::Delete(reply),
        ),
        ApiRequest::Change {
            name,
            password,
            change,
            reply,
        } => {
            let wish = Wish::Change(change);
            (ask(token, name, password, wish), Waiting::Change(reply))
        }
        ApiRequest::Pause {
            name,
            password,
            paused,
            reply,
        } => {
            let wish = Wish::Pause(paused);
            (ask(token, name, password, wish), Waiting::Change(reply))
        }
        ApiRequest::Switchover {
            name,
            password,
            to,
            reply,
        } => {
            let wish = Wish::Switchover { to };
            (ask(token, name, password, wish), Waiting::Switchover(reply))
        }
        ApiRequest::Backup {
            name,
            password,
            store,
            reply,
        } => {
            let wish = Wish::Backup { store };
            (ask(token, name, password, wish), Waiting::Backup(reply))
        }
        ApiRequest::DeleteBackup {
            name,
            password,
            id,
            left,
            reply,
        } => {
            let wish = Wish::DeleteBackup { id, left };
            (
                ask(token, name, password, wish),
                Waiting::DeleteBackup(reply),
            )
        }
        ApiRequest::Scale {
            name,
            password,
            num_nodes,
            reply,
        } => {
            let wish = Wish::Scale { num_nodes };
            (ask(token, name, password, wish), Waiting::Scale(reply))
        }
        ApiRequest::Restart {
            name,
            password,
            member,
            force,
            reply,
        } => {
            let wish = Wish::Restart { member, force };
            (ask(token, name, password, wish), Waiting::Restart(reply))
        }
        ApiRequest::Replace {
            name,
            password,
            member,
            reply,
        } => {
            let wish = Wish::Replace { member };
            (ask(token, name, password, wish), Waiting::Replace(reply))
        }
        ApiRequest::Failover {
            name,
            password,
            accept_data_loss,
            reply,
        } => {
            let wish = Wish::Failover { accept_data_loss };
            (ask(token, name, password, wish), Waiting::Failover(reply))
        }
        ApiRequest::Undelete {
            name,
            password,
            target,
            incarnation,
            reply,
        } => {
            let request = UndeleteRequest {
                token,
                name,
                target,
                incarnation,
                password,
            };
            (Event::Undelete(Box::new(request)), Waiting::Undelete(reply))
        }
        ApiRequest::Reclaim { slot, reply } => (
            Event::Reclaim(Reclaim { token, slot }),
            Waiting::Reclaim(reply),
        ),
    })
}

fn ask(token: RequestToken, name: ClusterName, password: Option<Secret>, wish: Wish) -> Event {
    Event::Ask(Box::new(Ask {
        token,
        name,
        password,
        wish,
    }))
}

fn new_password() -> Secret {
    use rand::{Rng as _, distr::Alphanumeric};
    let letters = rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH);
    Secret::new(letters.map(char::from).collect::<String>())
}
