//! The statements that make accounts: at a data directory's birth, and for the cluster's user. Pure.
//!
//! # Birth
//!
//! What must exist on every member before it replicates anything is made without binlog when its data directory
//! is new ([`birth_sql`]): the administration account, the accounts for replication and the schema `cotton`. The
//! administration account exists twice. At `localhost`, which is the unix socket, it may do everything. From anywhere else it
//! may see whom a server follows, copy a server as a whole (MySQL's BACKUP_ADMIN) and see how large its binlogs are, and
//! nothing more: its password lies on all agents.
//!
//! # Replication
//!
//! Each member replicates with an account of its own ([`replication_account`]), so that a master can keep one of
//! them from receiving, and with it from acknowledging, by locking its account. Its password is derived from that of the
//! administration account, which lies on all agents: nothing has to be handed out.
//!
//! # The cluster's user
//!
//! gets every privilege except those with which it could switch the safety off: change durability or replication, end the
//! server, take part in the acknowledgement of commits, or change Cotton's own accounts and tables. What it lacks:
//!
//! * SUPER, RELOAD, SHUTDOWN, FILE, everything that is called ADMIN but a few harmless ones, and what MySQL
//!   calls FLUSH_TABLES and BACKUP_ADMIN: with these one can hold up every commit.
//! * REPLICATION SLAVE: a replica that attaches itself is asked for acknowledgements, and a commit that only it acknowledged would be
//!   lost with it.
//! * On MySQL everything in the schemas `mysql` and `cotton`, by partial revokes, which its own grants inherit. A few columns of
//!   `mysql.user` stay readable.
//! * On MariaDB likewise: it holds its privileges on the database pattern `%`, and rows of its own for `mysql` and `cotton`,
//!   which are more specific and so the only ones that count there.
//!
//! What a server cannot prevent: on MariaDB, whoever may create accounts (CREATE USER) may alter, rename or drop *any* account,
//! the administration account included, and may hand the pattern `%` on to an account without those rows. A user who does so leaves
//! the guarantees on purpose. On MySQL the privilege SYSTEM_USER of Cotton's accounts prevents that.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::{server::Credentials, sql};
use crate::{
    cluster::{flavour::Flavour, id::MemberId},
    secret::Secret,
};

pub use super::authentication::Authentication;

/// How MariaDB keeps clients out while replication gets in: the statement that is run for every session without CONNECTION ADMIN
/// fails, and the server ends that session before it reads a command. It is read when a session has
/// authenticated, so that a handshake begun before does not slip in later. A user with an expired password is turned away too.
pub const MARIADB_REFUSES_CLIENTS: &str =
    "SET GLOBAL init_connect = 'SET @@cotton_admits_no_clients_yet = 1'";

/// The value of `init_connect` in [`MARIADB_REFUSES_CLIENTS`], for my.cnf.
pub const MARIADB_INIT_CONNECT: &str = "SET @@cotton_admits_no_clients_yet = 1";

/// Statements for `--init-file` of a new data directory, one a line. They may be run again.
///
/// The directory was initialised without a password for `root` (`mysqld --initialize-insecure`, `mariadb-install-db`), and no
/// client was let in since. Passwords stand in it as hashes only.
pub fn birth_sql(
    flavour: Flavour,
    admin_user: &str,
    admin: &Authentication,
    replication: &[(String, Authentication)],
) -> String {
    let accounts = accounts_sql(flavour, admin_user, admin, replication);
    // What an initialised directory brings along.
    let others = [
        "DELETE FROM mysql.db WHERE Db LIKE 'test%'",
        "DROP DATABASE IF EXISTS test",
        "FLUSH PRIVILEGES",
    ];
    accounts + &others.join(";\n") + ";\n"
}

/// Cotton's accounts and tables. What else there is in the directory is data, if it was restored.
fn accounts_sql(
    flavour: Flavour,
    admin_user: &str,
    admin: &Authentication,
    replication: &[(String, Authentication)],
) -> String {
    let mut statements = vec!["SET SESSION sql_log_bin = 0".to_owned()];
    let local = sql::account(admin_user, "localhost");
    let remote = sql::account(admin_user, "%");
    for account in [&local, &remote] {
        statements.push(create_user(flavour, account, admin));
    }
    statements.push(format!("GRANT ALL ON *.* TO {local} WITH GRANT OPTION"));
    for (user, authentication) in replication {
        statements.extend(replication_sql(flavour, user, authentication));
    }
    statements.extend(match flavour {
        Flavour::Mysql => vec![
            format!("GRANT REPLICATION CLIENT, BACKUP_ADMIN, CONNECTION_ADMIN, SYSTEM_USER ON *.* TO {remote}"),
            "ALTER USER 'root'@'localhost' ACCOUNT LOCK".to_owned(),
            "DELETE FROM mysql.user WHERE User = ''".to_owned(),
        ],
        Flavour::Mariadb => vec![
            format!("GRANT BINLOG MONITOR, REPLICA MONITOR, CONNECTION ADMIN ON *.* TO {remote}"),
            "ALTER USER 'root'@'localhost' ACCOUNT LOCK".to_owned(),
            "DELETE FROM mysql.global_priv WHERE User = '' OR User = 'root' AND Host <> 'localhost'".to_owned(),
            "DELETE FROM mysql.proxies_priv WHERE User = '' OR User = 'root' AND Host <> 'localhost'".to_owned(),
        ],
    });
    statements.extend(
        [
            "CREATE DATABASE IF NOT EXISTS cotton",
            "CREATE TABLE IF NOT EXISTS cotton.marker (epoch BIGINT UNSIGNED PRIMARY KEY, server INT UNSIGNED NOT NULL DEFAULT 0) ENGINE = InnoDB",
            "CREATE TABLE IF NOT EXISTS cotton.canary (id INT PRIMARY KEY, n BIGINT UNSIGNED NOT NULL) ENGINE = InnoDB",
            "FLUSH PRIVILEGES",
        ]
        .map(str::to_owned),
    );
    // Members ask each other which markers they have: see `remote::marker_up_to`.
    statements.push(format!("GRANT SELECT ON cotton.marker TO {remote}"));
    statements.join(";\n") + ";\n"
}

/// Whose accounts are in the data of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The administration account's name.
    pub admin: String,
    /// The name of the cluster's user.
    pub user: String,
    /// Whether the new cluster's user has the same name.
    pub is_same_user: bool,
}

/// Statements for `--init-file` of a server that replays binlogs on data that was restored: the administration account of this cluster gets in. All other
/// accounts stay as they are, as what is replayed may change them.
pub fn replay_sql(flavour: Flavour, admin_user: &str, admin: &Authentication) -> String {
    let account = sql::account(admin_user, "localhost");
    let statements = [
        "SET SESSION sql_log_bin = 0".to_owned(),
        create_user(flavour, &account, admin),
        alter_user(flavour, &account, admin),
        format!("GRANT ALL ON *.* TO {account} WITH GRANT OPTION"),
        "FLUSH PRIVILEGES".to_owned(),
    ];
    statements.join(";\n") + ";\n"
}

/// Statements for `--init-file` of a data directory that was restored from a backup, one a line. They may be run again.
///
/// Cotton's accounts get the new cluster's passwords. The former cluster's user is removed if the new one has its name, and made again
/// by the first master that opens; else it is locked, so that views and routines that were defined as it go on working. All other accounts are
/// data. Markers and canaries are those of another cluster.
pub fn restored_sql(
    flavour: Flavour,
    admin_user: &str,
    admin: &Authentication,
    replication: &[(String, Authentication)],
    former: &Former,
) -> String {
    let mut statements = vec![accounts_sql(flavour, admin_user, admin, replication)];
    let own = ["localhost", "%"].map(|host| (sql::account(admin_user, host), admin));
    let replicating = replication
        .iter()
        .map(|(user, authentication)| (sql::account(user, "%"), authentication));
    for (account, authentication) in own.into_iter().chain(replicating) {
        statements.push(alter_user(flavour, &account, authentication));
    }
    statements.extend(former_members_sql(flavour, replication));
    if former.admin != admin_user {
        for host in ["localhost", "%"] {
            let account = sql::account(&former.admin, host);
            statements.push(format!("ALTER USER IF EXISTS {account} ACCOUNT LOCK"));
        }
    }
    let user = sql::account(&former.user, "%");
    statements.push(match former.is_same_user {
        true => format!("DROP USER IF EXISTS {user}"),
        false => format!("ALTER USER IF EXISTS {user} ACCOUNT LOCK"),
    });
    statements.push("DELETE FROM cotton.marker".to_owned());
    statements.push("DELETE FROM cotton.canary".to_owned());
    let text = statements.join(";\n") + ";\n";
    text.replace(";\n;\n", ";\n")
}

/// Statements that remove the accounts of the former cluster's members whose numbers are beyond those that a directory is born with. A member of the new
/// cluster that gets such a number gets an account with a password of its own: one that is there would be left as it is.
///
/// How many there were nothing tells, so the rows go, as those of anonymous accounts do at birth; MySQL has them in two tables.
fn former_members_sql(flavour: Flavour, own: &[(String, Authentication)]) -> Vec<String> {
    let pattern = format!("^{REPLICATION_USER_PREFIX}[0-9]+$");
    let own: Vec<String> = own.iter().map(|(user, _)| sql::text(user)).collect();
    let own = own.join(", ");
    let tables = match flavour {
        Flavour::Mysql => &["mysql.user", "mysql.global_grants"][..],
        Flavour::Mariadb => &["mysql.global_priv"],
    };
    let removals = tables.iter().map(|table| {
        format!("DELETE FROM {table} WHERE User REGEXP '{pattern}' AND User NOT IN ({own})")
    });
    removals.chain(["FLUSH PRIVILEGES".to_owned()]).collect()
}

/// The statements that make a replication account. They may be run again.
pub fn replication_sql(
    flavour: Flavour,
    user: &str,
    authentication: &Authentication,
) -> [String; 2] {
    let account = sql::account(user, "%");
    let create = create_user(flavour, &account, authentication);
    // The second one gets in while clients are kept out; the third keeps the cluster's user from changing the account.
    let grant = match flavour {
        Flavour::Mysql => {
            format!("GRANT REPLICATION SLAVE, CONNECTION_ADMIN, SYSTEM_USER ON *.* TO {account}")
        }
        Flavour::Mariadb => {
            format!("GRANT REPLICATION SLAVE, CONNECTION ADMIN ON *.* TO {account}")
        }
    };
    [create, grant]
}

/// What the names of replication accounts begin with. The member's number follows.
pub const REPLICATION_USER_PREFIX: &str = "cotton_replication_";

/// The name of a member's replication account.
pub fn replication_user(member: MemberId) -> String {
    format!("{REPLICATION_USER_PREFIX}{member}")
}

/// The longest password with which MySQL replicates, in characters (MySQL manual, "CHANGE REPLICATION SOURCE TO").
const REPLICATION_PASSWORD_LENGTH: usize = 32;

/// A member's replication account on all servers of its cluster. The password is HMAC-SHA-256 of cluster and member under
/// the administration account's password, its first 128 bits in hexadecimal: whoever knows one of them learns nothing of
/// the others.
pub fn replication_account(admin: &Secret, cluster: Uuid, member: MemberId) -> Credentials {
    // HMAC takes keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(admin.expose().as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    mac.update(b"replication");
    mac.update(cluster.as_bytes());
    mac.update(&member.0.to_be_bytes());
    let mut password = hex::encode(mac.finalize().into_bytes());
    password.truncate(REPLICATION_PASSWORD_LENGTH);
    Credentials {
        user: replication_user(member),
        password: Secret::new(password),
    }
}

/// Whether a name cannot be that of a cluster's user: one of Cotton's own accounts, or one of the server's.
pub fn is_reserved(user: &str, admin_user: &str) -> bool {
    // User names are compared with regard to case.
    let servers_own = [
        "",
        "root",
        "mysql",
        "mariadb.sys",
        "mysql.sys",
        "mysql.session",
        "mysql.infoschema",
        "PUBLIC",
    ];
    let replicates = user
        .get(..REPLICATION_USER_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(REPLICATION_USER_PREFIX));
    user == admin_user || replicates || servers_own.contains(&user)
}

/// The longest user name that both flavours take, in characters: MySQL's limit.
pub const USER_NAME_MAX_LENGTH: usize = 32;

/// What the cluster's user may do everywhere, in both flavours (on MariaDB on the pattern `%`).
const DATA_PRIVILEGES: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
];

/// What MySQL's cluster user may do besides.
const MYSQL_SERVER_PRIVILEGES: &[&str] = &[
    "PROCESS",
    "SHOW DATABASES",
    "REPLICATION CLIENT",
    "CREATE USER",
    "CREATE ROLE",
    "DROP ROLE",
    "CREATE TABLESPACE",
];

/// The static privileges of MySQL that it must not have.
const MYSQL_STATIC_REFUSED: &[&str] = &["FILE", "RELOAD", "REPLICATION SLAVE", "SHUTDOWN", "SUPER"];

/// MySQL's dynamic privileges that the cluster's user gets where the server knows them; all others are refused, those of later
/// versions included.
const MYSQL_DYNAMIC: &[&str] = &[
    "ALLOW_NONEXISTENT_DEFINER",
    "APPLICATION_PASSWORD_ADMIN",
    "CREATE_SPATIAL_REFERENCE_SYSTEM",
    "FLUSH_OPTIMIZER_COSTS",
    "FLUSH_STATUS",
    "FLUSH_USER_RESOURCES",
    "RESOURCE_GROUP_USER",
    "ROLE_ADMIN",
    "SET_ANY_DEFINER",
    "SHOW_ROUTINE",
    "XA_RECOVER_ADMIN",
];

/// What MariaDB's cluster user may do besides. DELETE HISTORY, of system-versioned tables, is among those on `%`.
const MARIADB_SERVER_PRIVILEGES: &[&str] = &[
    "PROCESS",
    "SHOW DATABASES",
    "BINLOG MONITOR",
    "SLAVE MONITOR",
    "CREATE USER",
    "CREATE TABLESPACE",
    "FEDERATED ADMIN",
];

/// The privileges of MariaDB that it must not have. SET USER would let it define routines that run as the administration account;
/// BINLOG REPLAY would let it write into the markers' domain.
const MARIADB_REFUSED: &[&str] = &[
    "BINLOG ADMIN",
    "BINLOG REPLAY",
    "CONNECTION ADMIN",
    "FILE",
    "READ_ONLY ADMIN",
    "RELOAD",
    "REPLICATION MASTER ADMIN",
    "REPLICATION SLAVE",
    "REPLICATION SLAVE ADMIN",
    "SET USER",
    "SHUTDOWN",
    "SUPER",
];

/// The schemas that the cluster's user has nothing to do with.
const CLOSED_SCHEMAS: [&str; 2] = ["mysql", "cotton"];

/// The statements that make the cluster's user and give it its privileges. They may be run again.
///
/// `known` is the first column of `SHOW PRIVILEGES`: dynamic privileges differ between versions.
pub fn cluster_user_sql(
    flavour: Flavour,
    user: &str,
    authentication: &Authentication,
    known: &[&str],
) -> Vec<String> {
    let account = sql::account(user, "%");
    let mut statements = vec![create_user(flavour, &account, authentication)];
    statements.extend(match flavour {
        Flavour::Mysql => mysql_grants(&account, known),
        Flavour::Mariadb => mariadb_grants(&account),
    });
    statements
}

fn mysql_grants(account: &str, known: &[&str]) -> Vec<String> {
    let dynamic = |name: &&&str| {
        name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    let (granted, refused): (Vec<&str>, Vec<&str>) = known
        .iter()
        .filter(dynamic)
        .partition(|name| MYSQL_DYNAMIC.contains(name));
    let server = [DATA_PRIVILEGES, MYSQL_SERVER_PRIVILEGES, &granted]
        .concat()
        .join(", ");
    let refused = [MYSQL_STATIC_REFUSED, &refused].concat().join(", ");
    let mut statements = vec![
        format!("GRANT {server} ON *.* TO {account} WITH GRANT OPTION"),
        // Of what it does not have nothing is taken, without complaint.
        format!("REVOKE {refused} ON *.* FROM {account}"),
    ];
    for schema in CLOSED_SCHEMAS {
        statements.push(format!(
            "REVOKE {} ON `{schema}`.* FROM {account}",
            DATA_PRIVILEGES.join(", ")
        ));
    }
    statements.push(format!(
        "GRANT SELECT (Host, User, plugin, account_locked) ON mysql.user TO {account}"
    ));
    statements
}

fn mariadb_grants(account: &str) -> Vec<String> {
    let data = DATA_PRIVILEGES.join(", ");
    // SHOW VIEW, without which there would be no row for a closed schema, shows nothing there.
    let closed = DATA_PRIVILEGES
        .iter()
        .filter(|name| **name != "SHOW VIEW")
        .copied();
    let closed = closed.collect::<Vec<_>>().join(", ");
    let mut statements = Vec::new();
    // The closed schemas come first, so that there is no moment at which the pattern reaches them.
    for schema in CLOSED_SCHEMAS {
        statements.push(format!("GRANT SHOW VIEW ON `{schema}`.* TO {account}"));
        statements.push(format!(
            "REVOKE {closed}, GRANT OPTION ON `{schema}`.* FROM {account}"
        ));
    }
    let server = MARIADB_SERVER_PRIVILEGES.join(", ");
    let refused = MARIADB_REFUSED.join(", ");
    statements.extend([
        format!("GRANT {data}, DELETE HISTORY ON `%`.* TO {account} WITH GRANT OPTION"),
        format!("GRANT {server} ON *.* TO {account} WITH GRANT OPTION"),
        // Privileges on *.* would reach the closed schemas.
        format!("REVOKE {data}, DELETE HISTORY, {refused} ON *.* FROM {account}"),
        format!("GRANT SELECT (Host, User, plugin) ON mysql.user TO {account}"),
    ]);
    statements
}

fn create_user(flavour: Flavour, account: &str, authentication: &Authentication) -> String {
    match flavour {
        Flavour::Mysql => {
            // In hexadecimal, because of the salt; MySQL 8.0.17 and later.
            let string = hex::encode_upper(&authentication.mysql);
            format!(
                "CREATE USER IF NOT EXISTS {account} IDENTIFIED WITH caching_sha2_password AS 0x{string}"
            )
        }
        Flavour::Mariadb => {
            let string = sql::text(&authentication.mariadb);
            format!(
                "CREATE USER IF NOT EXISTS {account} IDENTIFIED VIA mysql_native_password USING {string}"
            )
        }
    }
}

/// Gives an account that is there a password, and lets it log in.
fn alter_user(flavour: Flavour, account: &str, authentication: &Authentication) -> String {
    let create = create_user(flavour, account, authentication);
    let alter = create.replacen("CREATE USER IF NOT EXISTS", "ALTER USER", 1);
    format!("{alter} ACCOUNT UNLOCK")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mysql::authentication::SALT_LENGTH, secret::Secret};

    #[test]
    fn birth_is_one_statement_a_line_and_has_no_password() {
        for flavour in [Flavour::Mysql, Flavour::Mariadb] {
            let admin = Authentication::of(&Secret::new("hunter2"), [7; SALT_LENGTH]);
            let replication = [("cotton_replication_0".to_owned(), admin.clone())];
            let text = birth_sql(flavour, "ad'min", &admin, &replication);
            assert!(text.starts_with("SET SESSION sql_log_bin = 0;\n"));
            assert!(text.lines().all(|line| line.ends_with(';')));
            assert!(!text.contains("hunter2") && text.contains("'ad''min'@'localhost'"));
        }
    }

    #[test]
    fn a_restored_directory_gets_the_new_clusters_accounts() {
        for flavour in [Flavour::Mysql, Flavour::Mariadb] {
            let admin = Authentication::of(&Secret::new("hunter2"), [7; SALT_LENGTH]);
            let replication = [("cotton_replication_0".to_owned(), admin.clone())];
            let restored = |admin_name: &str, is_same_user| {
                let former = Former {
                    admin: "ops".to_owned(),
                    user: "app".to_owned(),
                    is_same_user,
                };
                restored_sql(flavour, admin_name, &admin, &replication, &former)
            };
            let text = restored("admin", false);
            assert!(text.starts_with("SET SESSION sql_log_bin = 0;\n"));
            assert!(
                text.lines()
                    .all(|line| line.len() > 1 && line.ends_with(';'))
            );
            assert!(!text.contains("hunter2"));
            for line in [
                "ALTER USER IF EXISTS 'ops'@'localhost' ACCOUNT LOCK;",
                "ALTER USER IF EXISTS 'app'@'%' ACCOUNT LOCK;",
                "DELETE FROM cotton.canary;",
                "WHERE User REGEXP '^cotton_replication_[0-9]+$' AND User NOT IN ('cotton_replication_0');",
            ] {
                assert!(text.contains(line), "{line}: {text}");
            }
            assert_eq!(text.matches("ACCOUNT UNLOCK;").count(), 3);
            let text = restored("ops", true);
            assert!(text.contains("DROP USER IF EXISTS 'app'@'%'"));
            assert!(!text.contains("'ops'@'localhost' ACCOUNT LOCK"));
        }
    }

    #[test]
    fn each_member_of_each_cluster_has_a_password_of_its_own() {
        let of = |admin: &str, cluster, member| {
            let account = replication_account(
                &Secret::new(admin),
                Uuid::from_u128(cluster),
                MemberId(member),
            );
            account.password.expose().to_owned()
        };
        let same = of("a", 1, 1);
        assert_eq!((same.len(), &same), (32, &of("a", 1, 1)));
        for other in [of("b", 1, 1), of("a", 2, 1), of("a", 1, 2)] {
            assert_ne!(same, other);
        }
        assert!(
            is_reserved("Cotton_replication_7", "admin") && !is_reserved("cottonwood", "admin")
        );
    }

    #[test]
    fn unknown_dynamic_privileges_are_refused() {
        let authentication = Authentication::of(&Secret::new("x"), [7; SALT_LENGTH]);
        let known = [
            "Create role",
            "XA_RECOVER_ADMIN",
            "CLONE_ADMIN",
            "SOMETHING_NEW",
        ];
        let statements = cluster_user_sql(Flavour::Mysql, "u", &authentication, &known);
        assert!(
            statements[1].contains("XA_RECOVER_ADMIN") && !statements[1].contains("SHOW_ROUTINE")
        );
        assert!(
            statements[2].starts_with("REVOKE")
                && statements[2].contains("CLONE_ADMIN, SOMETHING_NEW")
        );
    }

    #[test]
    fn no_privilege_is_both_given_and_refused() {
        assert!(
            MYSQL_SERVER_PRIVILEGES
                .iter()
                .all(|name| !MYSQL_STATIC_REFUSED.contains(name))
        );
        assert!(
            MARIADB_SERVER_PRIVILEGES
                .iter()
                .all(|name| !MARIADB_REFUSED.contains(name))
        );
    }

    #[test]
    fn the_configured_and_the_running_way_to_refuse_clients_are_the_same() {
        assert_eq!(
            MARIADB_REFUSES_CLIENTS,
            format!("SET GLOBAL init_connect = '{MARIADB_INIT_CONNECT}'")
        );
    }
}
