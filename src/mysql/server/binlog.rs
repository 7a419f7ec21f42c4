//! A server's own binlog: how far it is, what it lacks, and when it goes on in another file.

use super::Server;
use crate::{
    cluster::{
        flavour::{Flavour, ServerVersion},
        gtid::Position,
    },
    mysql::error::Error,
};

/// From here on MySQL has no `SHOW MASTER STATUS` any more, in its place `SHOW BINARY LOG STATUS` (MySQL 8.4 release notes; it is there from 8.2 on).
const RENAMED: ServerVersion = ServerVersion::new(8, 2, 0);

/// How many bytes of a binlog file may be read before the first transaction of an epoch is sent; that takes some milliseconds.
const LONG_BINLOG: u64 = 1 << 20;

/// Both flavours' statement. It is not replicated.
pub(super) const BEGIN_BINLOG: &str = "FLUSH NO_WRITE_TO_BINLOG BINARY LOGS";

impl Server {
    /// The binlog file that is written, and how far it is: the end of a transaction.
    pub async fn binlog_end(&self) -> Result<(String, u64), Error> {
        const OPERATION: &str = "tell how far its binlog is";
        let statement = match self.flavour() {
            Flavour::Mysql if self.version() >= RENAMED => "SHOW BINARY LOG STATUS",
            Flavour::Mysql | Flavour::Mariadb => "SHOW MASTER STATUS",
        };
        let row = self.connections.row(OPERATION, statement).await?;
        let file = row.text(OPERATION, "File")?.to_owned();
        Ok((file, row.number(OPERATION, "Position")?))
    }

    /// Begins another binlog file, if the one that is written is longer than a megabyte.
    ///
    /// Who follows a server is sent what it lacks from the beginning of the file in which that begins: the server reads and skips all that
    /// comes before it. A new master's first transaction is waited for, so it had better be in a file of its own.
    ///
    /// # Errors
    /// When a statement fails; [`Error::NoBinlog`] on MariaDB, which goes on without a binlog if it cannot make the file.
    pub async fn shorten_binlog(&self) -> Result<(), Error> {
        let (before, length) = self.binlog_end().await?;
        if length < LONG_BINLOG {
            return Ok(());
        }
        self.connections
            .execute("begin another binlog file", BEGIN_BINLOG)
            .await?;
        match self.binlog_end().await {
            Ok((after, _)) if after != before => Ok(()),
            // It answers without a row.
            Ok(_) | Err(Error::Answer { .. }) => Err(Error::NoBinlog),
            Err(error) => Err(error),
        }
    }

    /// MySQL: what the server has executed and its binlogs do not hold. MariaDB's binlogs say that themselves.
    pub async fn purged(&self) -> Result<Position, Error> {
        const OPERATION: &str = "tell what its binlogs do not hold";
        if self.flavour() == Flavour::Mariadb {
            return Ok(Position::empty(Flavour::Mariadb));
        }
        let row = self
            .connections
            .row(OPERATION, "SELECT @@GLOBAL.gtid_purged AS purged")
            .await?;
        Ok(Position::parse(
            Flavour::Mysql,
            row.text(OPERATION, "purged")?,
        )?)
    }
}
