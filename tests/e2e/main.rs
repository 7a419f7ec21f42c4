//! The real binary with real ZooKeeper, MariaDB and MySQL servers; only Mesos is stood in for.
//!
//! Each story uses the system as a person or a script does: through the REST API, the command line and
//! discovery. Each is told for both flavours. Stories share a system per flavour, except those which
//! need one of their own because they break it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

mod agents;
mod backups;
mod change;
mod clusters;
mod divergence;
mod drain;
mod durability;
mod ensemble;
mod examples;
mod failover;
mod faults;
mod given_up;
mod growing;
mod hundred_restarts;
mod interrupted;
mod leaving;
mod local_state;
mod lost_calls;
mod membership;
mod memory;
mod pause;
mod ports;
mod recovery;
mod requests;
mod restarts;
mod restore_to;
mod schedulers;
mod slots;
mod soak;
mod spread;
mod switchover;
mod thousand;
mod undelete;
mod unknown_tasks;
mod upgrades;
mod verification;
mod verification_interrupted;
mod without_donor;

/// Tells each story for both flavours.
macro_rules! for_both_flavours {
    ($($story:ident),* $(,)?) => {
        mod mariadb {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(cotton::cluster::flavour::Flavour::Mariadb).await;
                }
            )*
        }
        mod mysql {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(cotton::cluster::flavour::Flavour::Mysql).await;
                }
            )*
        }
    };
}
use for_both_flavours;
