//! What can be seen of a server at one moment.

use crate::cluster::gtid::Position;

/// What a server says of itself. The parts are read one after the other: received transactions first,
/// executed ones last, so that the two together never miss one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Whether clients cannot write.
    pub read_only: bool,
    /// Whether clients can log in at all.
    pub clients_admitted: bool,
    /// Whom the server follows; `None` if nobody.
    pub replication: Option<Replication>,
    /// What was received from a master, whether applied or not. Also what the relay log files still hold
    /// after a restart.
    pub received: Position,
    /// What was executed. On MariaDB a transaction counts from when it is in the binlog, also while it waits for its
    /// acknowledgement.
    pub executed: Position,
    /// Whether the server acknowledges what it receives (semi-synchronous replication at work).
    pub acknowledging: bool,
    /// Commits that wait for an acknowledgement right now.
    pub waiting_sessions: u32,
    /// Replicas that are connected and announced that they acknowledge. One that hangs is still counted.
    pub clients: u32,
}

/// Whom a server follows, and how that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// The master's host.
    pub host: String,
    /// The master's port.
    pub port: u16,
    /// Whether the receiver (I/O thread) is connected to the master.
    pub receiving: bool,
    /// Whether the applier (SQL thread) runs.
    pub applying: bool,
    /// Why the receiver is not connected, in the server's words.
    pub receiver_error: Option<String>,
    /// Why the applier stopped, in the server's words.
    pub applier_error: Option<String>,
}
