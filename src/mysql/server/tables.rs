//! Looking through all tables of a server: whether they are damaged, and how many rows they have.

use std::{collections::BTreeSet, time::Duration};

use super::Server;
use crate::mysql::{Error, connections::Row, sql};

/// Databases without data of their own: what they show is made when it is read (MySQL manual, "INFORMATION_SCHEMA Tables", "MySQL Performance Schema").
const VIRTUAL: &str = "'information_schema', 'performance_schema'";

/// Engines whose tables only say where the data is: on other servers, in files elsewhere, or in other tables, which are looked through themselves. What
/// `CHECK TABLE` says of them is about that place: of a `MERGE` table one of whose parts was dropped it says `Corrupt` (MariaDB 10.11: tried).
const ELSEWHERE: &str = "'FEDERATED', 'CONNECT', 'SPIDER', 'S3', 'OQGRAPH', 'SPHINX', 'MRG_MYISAM'";

/// How the server's sentences about a table of an earlier series begin, which is not checked then, in English (`ER_TABLE_NEEDS_UPGRADE`, MySQL and MariaDB, and
/// `ER_TABLE_NEEDS_REBUILD`). The answer has no number of the error, and names stand behind these words only.
const OLD: [&str; 3] = [
    "Table upgrade required. ",
    "Upgrade required. ",
    "Table rebuild required. ",
];

/// The databases of the server and of Cotton.
const SYSTEM: [&str; 3] = ["mysql", "sys", "cotton"];

/// How long listing all tables may take: the server opens each.
const LIST_LIMIT: Duration = Duration::from_secs(3600);

/// How long checking a table, or counting its rows, may take.
const TABLE_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// A table with data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// Its engine; `None` where the server cannot tell it.
    pub engine: Option<String>,
}

impl Table {
    /// Whether it is one of the server's own, or of Cotton's.
    pub fn is_system(&self) -> bool {
        SYSTEM.contains(&self.database.as_str())
    }

    fn identifier(&self) -> String {
        format!(
            "{}.{}",
            sql::identifier(&self.database),
            sql::identifier(&self.name)
        )
    }
}

impl Server {
    /// All tables whose data this server has, in the order of their names, MariaDB's system-versioned ones too. Views and sequences are none.
    pub async fn tables(&self) -> Result<Vec<Table>, Error> {
        const OPERATION: &str = "list the tables";
        let sql = format!(
            "SELECT TABLE_SCHEMA AS table_schema, TABLE_NAME AS table_name, ENGINE AS engine FROM information_schema.TABLES WHERE TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW', 'SEQUENCE') \
             AND TABLE_SCHEMA NOT IN ({VIRTUAL}) AND UPPER(COALESCE(ENGINE, '')) NOT IN ({ELSEWHERE})"
        );
        let rows = self.connections.rows_within(OPERATION, LIST_LIMIT, sql);
        let table = |row: &Row| {
            Ok(Table {
                database: row.text(OPERATION, "table_schema")?.to_owned(),
                name: row.text(OPERATION, "table_name")?.to_owned(),
                engine: row.get("engine").map(str::to_owned),
            })
        };
        let tables: Result<Vec<Table>, Error> = rows.await?.iter().map(table).collect();
        let mut tables = tables?;
        tables.sort();
        Ok(tables)
    }

    /// The engines that this server has. It says `Corrupt` of a table of another one (MariaDB 10.11: tried).
    pub async fn engines(&self) -> Result<BTreeSet<String>, Error> {
        const OPERATION: &str = "list the engines";
        let sql = "SELECT ENGINE AS engine FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')";
        let rows = self.connections.rows(OPERATION, sql).await?;
        let engine = |row: &Row| Ok(row.text(OPERATION, "engine")?.to_owned());
        rows.iter().map(engine).collect()
    }

    /// What is wrong with a table, as the server says in English; `None` if nothing is (MySQL manual, "CHECK TABLE Statement").
    pub async fn check_table(&self, table: &Table) -> Result<Option<String>, Error> {
        let sql = format!("CHECK TABLE {}", table.identifier());
        let rows = self
            .connections
            .rows_within("check a table", TABLE_LIMIT, sql);
        let rows = rows.await?;
        let told = rows.iter().map(|row| {
            let of = |column| row.get(column).unwrap_or_default();
            (of("Msg_type"), of("Msg_text"))
        });
        Ok(wrong(told))
    }

    /// How many rows a table has.
    pub async fn count_rows(&self, table: &Table) -> Result<u64, Error> {
        const OPERATION: &str = "count the rows of a table";
        let sql = format!("SELECT COUNT(*) AS counted FROM {}", table.identifier());
        let rows = self
            .connections
            .rows_within(OPERATION, TABLE_LIMIT, sql)
            .await?;
        let row = rows.first().ok_or(Error::Answer {
            operation: OPERATION,
            column: "counted",
        })?;
        row.number(OPERATION, "counted")
    }
}

/// What is wrong by the rows that `CHECK TABLE` answers with: their types and texts. Warnings alone are not: such as one that a table was not closed, which is so in
/// any copy. A table that asks for an upgrade is of an earlier series, not damaged.
fn wrong<'a>(told: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut found = Vec::new();
    let mut is_wrong = false;
    for (kind, text) in told {
        let is_old = OLD.iter().any(|begin| text.starts_with(begin));
        let bad = match kind.to_ascii_lowercase().as_str() {
            "error" => !is_old,
            "status" => !matches!(text, "OK" | "Table is already up to date"),
            "warning" => false,
            _ => continue,
        };
        is_wrong |= bad;
        if bad || kind.eq_ignore_ascii_case("warning") {
            found.push(text);
        }
    }
    is_wrong.then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_age_and_from_warnings() {
        let good: [&[(&str, &str)]; 6] = [
            &[("status", "OK")],
            &[
                (
                    "warning",
                    "1 client is using or hasn't closed the table properly",
                ),
                ("status", "OK"),
            ],
            &[(
                "note",
                "The storage engine for the table doesn't support check",
            )],
            &[("status", "Table is already up to date")],
            &[(
                "error",
                "Table rebuild required. Please do \"ALTER TABLE `t` FORCE\" or dump/reload to fix it!",
            )],
            &[(
                "error",
                "Upgrade required. Please do \"REPAIR TABLE `t`\" or dump/reload to fix it!",
            )],
        ];
        for told in good {
            assert_eq!(wrong(told.iter().copied()), None, "{told:?}");
        }
        let index = "InnoDB: Index 'b' contains 2 entries, should be 3.";
        let bad = [("Warning", index), ("error", "Corrupt")];
        let sentence = wrong(bad.into_iter());
        assert_eq!(sentence, Some(format!("{index}; Corrupt")));
        let gone = [
            ("Error", "Table 'a.t' doesn't exist in engine"),
            ("status", "Operation failed"),
        ];
        assert!(wrong(gone.into_iter()).is_some());
        // Whoever names a table so does not hide its damage.
        let named = [(
            "Error",
            "Table 'a.Upgrade required. ' doesn't exist in engine",
        )];
        assert!(wrong(named.into_iter()).is_some());
    }
}
