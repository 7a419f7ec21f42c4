//! Files that a command needs, brought into its sandbox before it starts.
//!
//! Source: "Mesos Fetcher": http and file URIs and paths; `executable` sets the mode, `extract`
//! unpacks archives by their names, `output_file` renames.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::local::client;
use crate::mesos::v1::command_info::Uri;

/// Archives that `tar` reads; the others of Mesos' list are `.gz` and `.zip`.
const TAR_ENDINGS: [&str; 8] = [
    ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".tb2",
];

/// Brings one file into the sandbox.
///
/// # Errors
///
/// A sentence for the sandbox's `stderr`.
pub async fn fetch(uri: &Uri, sandbox: &Path) -> Result<(), String> {
    let value = uri.value.trim();
    let fail = |why: String| format!("Failed to fetch '{value}': {why}");
    let name = match uri.output_file.as_deref() {
        Some(name) => name.to_owned(),
        None => base_name(value).ok_or_else(|| fail("it names no file".to_owned()))?,
    };
    let target =
        inside(sandbox, &name).ok_or_else(|| fail("it would leave the sandbox".to_owned()))?;
    if let Some(folder) = target.parent() {
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(|error| fail(error.to_string()))?;
    }
    if value.starts_with("http://") {
        download(value, &target).await.map_err(fail)?;
    } else {
        let path = value.strip_prefix("file://").unwrap_or(value);
        if path.contains("://") {
            return Err(fail(
                "only http:// and file:// can be fetched here".to_owned(),
            ));
        }
        if !path.starts_with('/') {
            return Err(fail(
                "a relative path needs the agent's frameworks_home, which is not set".to_owned(),
            ));
        }
        tokio::fs::copy(path, &target)
            .await
            .map_err(|error| fail(error.to_string()))?;
    }
    if uri.executable() {
        let mode = std::fs::Permissions::from_mode(0o755);
        return tokio::fs::set_permissions(&target, mode)
            .await
            .map_err(|error| fail(error.to_string()));
    }
    if uri.extract() {
        unpack(&target, sandbox).await.map_err(fail)?;
    }
    Ok(())
}

/// The last part of a path or URL, without its query.
fn base_name(value: &str) -> Option<String> {
    let path = value.split(['?', '#']).next()?;
    let name = path.rsplit('/').next()?;
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

/// A path below the sandbox.
fn inside(sandbox: &Path, name: &str) -> Option<PathBuf> {
    use std::path::Component;
    let plain = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    plain.then(|| sandbox.join(name))
}

async fn download(url: &str, target: &Path) -> Result<(), String> {
    let mut body = client::get(url).await.map_err(|error| error.to_string())?;
    let mut file = tokio::fs::File::create(target)
        .await
        .map_err(|error| error.to_string())?;
    while let Some(piece) = body.next().await.map_err(|error| error.to_string())? {
        file.write_all(&piece)
            .await
            .map_err(|error| error.to_string())?;
    }
    file.flush().await.map_err(|error| error.to_string())
}

async fn unpack(archive: &Path, sandbox: &Path) -> Result<(), String> {
    let name = archive
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut command = if TAR_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        let mut command = tokio::process::Command::new("tar");
        command.arg("-C").arg(sandbox).arg("-xf").arg(archive);
        command
    } else if name.ends_with(".gz") {
        let mut command = tokio::process::Command::new("gzip");
        command.arg("-dk").arg(archive);
        command
    } else if name.ends_with(".zip") {
        let mut command = tokio::process::Command::new("unzip");
        command.arg("-o").arg("-d").arg(sandbox).arg(archive);
        command
    } else {
        return Ok(());
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command
        .output()
        .await
        .map_err(|error| format!("unpack it: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "unpack it: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(
            base_name("http://h:1/a/b.tgz?x=/y").as_deref(),
            Some("b.tgz")
        );
        assert_eq!(base_name("http://h/"), None);
        let sandbox = Path::new("/s");
        assert_eq!(inside(sandbox, "a/b"), Some(PathBuf::from("/s/a/b")));
        assert_eq!(inside(sandbox, "../b"), None);
        assert_eq!(inside(sandbox, "/etc/passwd"), None);
    }
}
