//! What archiving a server's binlogs asks of it.

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
