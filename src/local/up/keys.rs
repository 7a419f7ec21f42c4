//! The files and names that the scheduler needs and a newcomer does not have.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::unistd::{Uid, User};
use rand::RngCore as _;
use rand::distr::{Alphanumeric, SampleString as _};

/// How long the generated password of the MySQL admin account is.
const PASSWORD_LENGTH: usize = 32;

/// The system users for database servers, the better first: the one of Debian's packages, which owns nothing
/// else, and the one that every system has. A server refuses to run as root.
const DATABASE_USERS: [&str; 2] = ["mysql", "nobody"];

/// Key files.
pub struct Keys {
    /// The MySQL admin account, YAML.
    pub admin: PathBuf,
    /// 32 bytes that encrypt cluster passwords.
    pub scheduler: PathBuf,
}

/// Makes the key files, unless a former run with this directory has: its clusters need the same.
///
/// # Errors
///
/// What the file system says, never with a secret in it.
pub fn make(work_dir: &Path, framework_user: &str) -> anyhow::Result<Keys> {
    let folder = work_dir.join("keys");
    fs::create_dir_all(&folder).context("make the directory for keys")?;
    let keys = Keys {
        admin: folder.join("admin.yml"),
        scheduler: folder.join("scheduler.key"),
    };
    if !keys.admin.exists() {
        let password = Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH);
        let text = format!("username: cotton_admin\npassword: {password}\n");
        write_secret(&keys.admin, text.as_bytes())?;
    }
    if !keys.scheduler.exists() {
        let mut key = [0_u8; 32];
        rand::rng().fill_bytes(&mut key);
        // A trailing line feed would count as one that is tolerated, and the key as too short.
        if key[31] == b'\n' {
            key[31] = 0;
        }
        write_secret(&keys.scheduler, &key)?;
    }
    // Executors read it as the framework's user.
    if Uid::effective().is_root()
        && let Some(user) =
            User::from_name(framework_user).context("look the framework's user up")?
    {
        std::os::unix::fs::chown(
            &keys.admin,
            Some(user.uid.as_raw()),
            Some(user.gid.as_raw()),
        )
        .context("hand the admin key file to the framework's user")?;
    }
    Ok(keys)
}

fn write_secret(path: &Path, secret: &[u8]) -> anyhow::Result<()> {
    let open = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = open.with_context(|| format!("make the key file {}", path.display()))?;
    file.write_all(secret)
        .with_context(|| format!("write the key file {}", path.display()))
}

/// The system user of executors: the given one, or for root one of [`DATABASE_USERS`], or the current one.
///
/// # Errors
///
/// A given user that does not exist.
pub fn framework_user(given: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return match User::from_name(name).context("look --framework-user up")? {
            Some(_) => Ok(name.to_owned()),
            None => bail!("--framework-user: there is no user '{name}' on this machine"),
        };
    }
    if Uid::effective().is_root() {
        for name in DATABASE_USERS {
            if User::from_name(name).context("look users up")?.is_some() {
                return Ok(name.to_owned());
            }
        }
    }
    match User::from_uid(Uid::effective()).context("look the current user up")? {
        Some(user) => Ok(user.name),
        None => bail!("the current user has no name; give --framework-user"),
    }
}

/// A copy of a file that the framework's user can read, wherever the file itself is: a home
/// directory is usually closed to other users.
///
/// # Errors
///
/// What the file system says.
pub fn readable_by_all(file: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let name = file
        .file_name()
        .with_context(|| format!("{} is no file", file.display()))?;
    let copy = folder.join(name);
    let copied = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::copy(file, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644))
    };
    copied().with_context(|| format!("copy {} to {}", file.display(), copy.display()))?;
    Ok(copy)
}

/// The hash that names a package.
///
/// # Errors
///
/// What the file system says.
pub fn sha256(path: &Path) -> std::io::Result<String> {
    use sha2::Digest as _;
    let mut file = fs::File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}
