//! Whether the server's port is there for it, before anything is made for a server that could not listen.
//!
//! Mesos gives ports to tasks by its books. What listens on one without asking Mesos is not in them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long the port of a server that has run there before may stay in use: a killed one with much memory ends late.
const FORMER_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Something else listens on the port.
#[derive(Debug, thiserror::Error)]
#[error("port {port} is in use on this host by something that Mesos has not given it to")]
pub struct PortTaken {
    port: u16,
}

/// Waits until the port is free, if a former server of this member may still be ending.
///
/// # Errors
/// [`PortTaken`], at once where there was no former server.
pub async fn free(bind_address: &str, port: u16, had_server: bool) -> Result<(), PortTaken> {
    let deadline = Instant::now()
        + if had_server {
            FORMER_ENDS_WITHIN
        } else {
            Duration::ZERO
        };
    while is_taken(bind_address, port) {
        if Instant::now() >= deadline {
            return Err(PortTaken { port });
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Whether nobody can listen there. What else is wrong with the address is the server's to say.
fn is_taken(bind_address: &str, port: u16) -> bool {
    let in_use = |bound: io::Result<TcpListener>| {
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    match bind_address {
        "*" => {
            in_use(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
                || in_use(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        }
        address => in_use(TcpListener::bind((address, port))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[tokio::test]
    async fn what_listens_on_any_of_the_addresses_is_found() {
        for held in ["127.0.0.1", "0.0.0.0"] {
            let other = TcpListener::bind((held, 0)).unwrap();
            let port = other.local_addr().unwrap().port();
            for own in ["*", "127.0.0.1"] {
                let taken = free(own, port, false).await.unwrap_err();
                assert!(taken.to_string().contains(&port.to_string()), "{taken}");
            }
            drop(other);
            free("*", port, false).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_former_server_may_end_late() {
        let former = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = former.local_addr().unwrap().port();
        let ends = async {
            sleep(2 * LOOK_AGAIN).await;
            drop(former);
        };
        let (freed, ()) = tokio::join!(free("*", port, true), ends);
        freed.unwrap();
    }
}
