//! What another member's binlogs hold, asked through the network: whether replaying them costs less than a copy.

use tokio::time::{Instant, timeout_at};

use super::{connections::Connections, error::Error, server::Source};
use crate::cluster::flavour::Flavour;

const OPERATION: &str = "look at the master's binlogs";

/// The name of a server's first binlog file. A MariaDB server that began as a copy has a higher number in its first one.
const FIRST_FILE: &str = "binlog.000001";

/// The size of a master's binlogs in bytes, if they go back to its first transaction and can be read from there. Of MariaDB
/// that is known only of a server which has not been restarted.
///
/// # Errors
/// When the master cannot be asked until the deadline.
pub async fn size_of_all(
    flavour: Flavour,
    source: &Source,
    deadline: Instant,
) -> Result<Option<u64>, Error> {
    let asked = async {
        let connections = Connections::through_network(source);
        let files = connections.rows(OPERATION, "SHOW BINARY LOGS").await?;
        let is_readable = match flavour {
            Flavour::Mysql => {
                let row = connections
                    .row(OPERATION, "SELECT @@GLOBAL.gtid_purged AS purged")
                    .await?;
                row.text(OPERATION, "purged")?.is_empty()
            }
            // A server that was killed while its disk was full has left half an event at the end of a file, and MariaDB
            // does not cut it off when it starts again (tried): whoever reads that far gets error 1236 for ever.
            Flavour::Mariadb => files.len() == 1,
        };
        let mut size = 0;
        for file in &files {
            size += file.number::<u64>(OPERATION, "File_size")?;
        }
        let first = files.first().and_then(|file| file.get("Log_name"));
        Ok((is_readable && first == Some(FIRST_FILE)).then_some(size))
    };
    match timeout_at(deadline, asked).await {
        Ok(size) => size,
        Err(_) => Err(Error::TimedOut {
            operation: OPERATION,
            waited: deadline.elapsed(),
        }),
    }
}
