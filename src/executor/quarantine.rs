//! Data directories that were set aside because they hold transactions that are not in the cluster's history.
//!
//! What they hold beyond it is exported as SQL by the server's own binlog tool into a file beside the directory,
//! `<data id>.sql.gz`, for whoever wants to know what was never acknowledged and is not there any more. The rows
//! stand in it twice: as statements that a server executes, and in comments that a person reads.
//!
//! # How much is kept
//!
//! A directory goes only after its export is complete, and then when two later ones are there, when its
//! export is a week old, or when less than a tenth of the disk is free. Of the exports themselves twenty are kept. A directory
//! whose export failed stays, and the export is tried again: nothing is ever removed because a tool failed.
//!
//! What is to be exported stands in `<data id>.json` from before the directory is moved until its export is complete. So an export
//! that an executor did not live to finish is made by the next one of the same member that finds the directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use nix::sys::statvfs::statvfs;
use tokio::{task, time::timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    install::Installed,
    mysqld::Program,
    promise::sync_folder_of,
    sandbox::Sandbox,
    steps::{self, Context},
    tools::{self, ToolError},
};
use crate::{
    cluster::{control::Beyond, gtid::Position, id::DataId},
    time::Timestamp,
};

/// How many directories are kept whose export is complete.
const DIRECTORIES: usize = 2;

/// How long such a directory is kept.
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many exports are kept.
const EXPORTS: usize = 20;

/// An export is given up rather than leave less than this, in bytes.
const LEAST_SPACE: u64 = 256 << 20;

/// How long one run of the tool may take. It reads binlogs as fast as the disk gives them.
const TOOL_DEADLINE: Duration = Duration::from_secs(3600);

/// What ends the name of an export.
const SUFFIX: &str = ".sql.gz";

/// What ends the name of the file that tells what an export is to hold.
const DESCRIPTION: &str = ".json";

/// An export has come to nothing. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The tool is missing.
    #[error(
        "the server's binlog tool (mysqlbinlog or mariadb-binlog) is neither beside it nor on the search path"
    )]
    NoTool,
    /// There is no room.
    #[error("less than {} MiB of the disk are free", LEAST_SPACE >> 20)]
    NoSpace,
    /// The tool, or the file system beneath it.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Writes down what a directory holds beyond the history, before it is moved into the quarantine.
///
/// # Errors
/// When the file system refuses.
pub fn describe(folder: &Path, data: DataId, beyond: &Beyond) -> io::Result<()> {
    let path = folder.join(format!("{data}{DESCRIPTION}"));
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    serde_json::to_writer(&mut file, beyond)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    sync_folder_of(&path)
}

/// The directory that was set aside last and is not exported yet. One that cannot be told about is left as it is.
///
/// # Errors
/// When the file system refuses.
pub fn unexported(folder: &Path) -> io::Result<Option<(DataId, Beyond)>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let data = name.strip_suffix(DESCRIPTION).map(Uuid::parse_str);
        let Some(Ok(data)) = data.map(|data| data.map(DataId)) else {
            continue;
        };
        let exported = folder.join(format!("{data}{SUFFIX}")).exists();
        if exported || !folder.join(data.to_string()).is_dir() {
            continue;
        }
        let since = entry.metadata()?.modified()?;
        match serde_json::from_slice(&fs::read(entry.path())?) {
            Ok(beyond) if newest.as_ref().is_none_or(|(known, _)| *known < since) => {
                newest = Some((since, (data, beyond)));
            }
            Ok(_) => {}
            Err(error) => {
                warn!(path = %entry.path().display(), %error, "what is to be exported of a data directory that was set aside cannot be read; the directory is kept");
            }
        }
    }
    Ok(newest.map(|(_, found)| found))
}

/// Exports what a directory that was set aside holds beyond the cluster's history, then removes what is kept for too
/// long. Returns the export's path in the sandbox.
///
/// # Errors
/// [`ExportError`]; the directory stays.
pub async fn export(
    context: &Context,
    installed: &Installed,
    data: DataId,
    beyond: &Beyond,
) -> Result<String, ExportError> {
    let sandbox = &context.sandbox;
    let name = format!("{data}{SUFFIX}");
    let path = sandbox.quarantine_folder().join(&name);
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        let written = write(context, installed, data, beyond, &unfinished).await;
        if let Err(error) = written {
            // What there is of it is of no use, and the space may be.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        // A crash before this leaves an unfinished file, which the next attempt overwrites.
        fs::rename(&unfinished, &path).map_err(ToolError::files(&path))?;
        sync_folder_of(&path).map_err(ToolError::files(&path))?;
        info!(%data, path = %path.display(), extras = %beyond.extras, "what is not in the cluster's history was exported");
    }
    // One that stays is passed over, because the export is there.
    let _ = fs::remove_file(path.with_file_name(format!("{data}{DESCRIPTION}")));
    let folder = sandbox.quarantine_folder();
    let retired = task::spawn_blocking(move || retire(&folder, Timestamp::now())).await;
    match retired {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%error, "data directories that were set aside cannot be looked through")
        }
        Err(panicked) => warn!(error = %panicked, "looking through the quarantine failed"),
    }
    Ok(format!("{}/{name}", Sandbox::QUARANTINE))
}

async fn write(
    context: &Context,
    installed: &Installed,
    data: DataId,
    beyond: &Beyond,
    path: &Path,
) -> Result<(), ExportError> {
    let names = match beyond.extras {
        Position::Mysql(_) => &["mysqlbinlog"][..],
        Position::Mariadb(_) => &["mariadb-binlog", "mysqlbinlog"],
    };
    let tool = tools::find(&installed.mysqld, names).ok_or(ExportError::NoTool)?;
    let folder = context.sandbox.quarantine(data);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(ToolError::files(path))?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    let what = format!(
        "-- Transactions that are not in the history of cluster {}: {}\n-- The history has {} of them.\n",
        context.task.cluster, beyond.extras, beyond.common
    );
    encoder
        .write_all(what.as_bytes())
        .map_err(ToolError::files(path))?;
    // What was applied is in the binlogs. What was only received is in the relay logs.
    let unapplied = beyond.extras.minus(&beyond.executed);
    let runs = [
        ("binlog.", &beyond.extras, beyond.common.clone()),
        ("relay.", &unapplied, beyond.executed.clone()),
    ];
    for (prefix, wanted, from) in runs {
        let logs = logs(&folder, prefix).map_err(ToolError::files(&folder))?;
        if wanted.is_empty() || logs.is_empty() {
            continue;
        }
        let mut arguments = vec!["--no-defaults".into(), "--verbose".into()];
        arguments.extend(selection(wanted, &from).into_iter().map(Into::into));
        arguments.extend(logs.into_iter().map(Into::into));
        let program = Program {
            path: tool.clone(),
            arguments,
            working_directory: folder.clone(),
            log: context.sandbox.export_log(),
        };
        encoder = run(context, &program, encoder, path).await?;
    }
    let path = path.to_owned();
    let finished = task::spawn_blocking(move || encoder.finish()?.sync_all()).await;
    finished
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(ToolError::files(&path))?;
    Ok(())
}

/// The options that select transactions.
fn selection(wanted: &Position, from: &Position) -> Vec<String> {
    match (wanted, from) {
        (Position::Mysql(wanted), _) => vec![
            format!("--include-gtids={wanted}"),
            // Executed elsewhere they are other transactions.
            "--skip-gtids".to_owned(),
        ],
        (Position::Mariadb(wanted), Position::Mariadb(from)) => {
            // The tool insists on meeting every position that it is told to start from.
            let from = from.in_domains_of(wanted);
            let mut options = vec![format!("--stop-position={wanted}")];
            if !from.is_empty() {
                options.push(format!("--start-position={from}"));
            }
            options
        }
        (Position::Mariadb(wanted), Position::Mysql(_)) => {
            vec![format!("--stop-position={wanted}")]
        }
    }
}

/// The log files of a directory in their order, such as `binlog.000001`.
///
/// # Errors
/// When the directory cannot be read.
pub fn logs(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(prefix);
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            logs.push((number, name));
        }
    }
    logs.sort();
    Ok(logs.into_iter().map(|(_, name)| name).collect())
}

/// Runs the tool and appends what it writes.
async fn run(
    context: &Context,
    program: &Program,
    encoder: GzEncoder<File>,
    path: &Path,
) -> Result<GzEncoder<File>, ExportError> {
    // What an earlier run has printed is of no interest any more.
    let _ = fs::remove_file(&program.log);
    let (reader, writer) = io::pipe().map_err(ToolError::files(path))?;
    let spawner = &context.spawner;
    let mut process = spawner
        .spawn_between(program, Stdio::null(), Some(writer.into()))
        .await
        .map_err(ToolError::from)?;
    let target = path.to_owned();
    let copying = task::spawn_blocking(move || compress(reader, encoder, &target));
    // Dropping the process at the deadline kills it, and with its end of the pipe the copying ends.
    let status = timeout(TOOL_DEADLINE, process.ended()).await;
    drop(process);
    let copied = copying.await;
    let encoder = copied.unwrap_or_else(|panicked| {
        Err(ToolError::files(path)(io::Error::other(panicked)).into())
    })?;
    let how = match status {
        Ok(status) if status.success() => return Ok(encoder),
        Ok(status) => steps::how_it_ended(status),
        Err(_) => "took too long".to_owned(),
    };
    Err(ToolError::failed("the binlog tool", how, &program.log).into())
}

fn compress(
    mut reader: io::PipeReader,
    mut encoder: GzEncoder<File>,
    path: &Path,
) -> Result<GzEncoder<File>, ExportError> {
    let mut piece = vec![0; 1 << 20];
    let mut since_look = 0;
    loop {
        let length = reader.read(&mut piece).map_err(ToolError::files(path))?;
        if length == 0 {
            return Ok(encoder);
        }
        encoder
            .write_all(&piece[..length])
            .map_err(ToolError::files(path))?;
        since_look += length;
        if since_look >= 64 << 20 {
            since_look = 0;
            let (free, _) = space(path).map_err(ToolError::files(path))?;
            if free < LEAST_SPACE {
                return Err(ExportError::NoSpace);
            }
        }
    }
}

/// The free bytes and all bytes of the disk.
fn space(path: &Path) -> io::Result<(u64, u64)> {
    let disk = statvfs(path)?;
    let block = disk.fragment_size();
    Ok((disk.blocks_available() * block, disk.blocks() * block))
}

/// Removes directories whose export is complete, and the oldest exports, as far as the module's rule says so.
fn retire(folder: &Path, now: Timestamp) -> io::Result<()> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.as_millis());
    let mut exports = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(data) = name.strip_suffix(SUFFIX) {
            exports.push((
                entry.metadata()?.modified()?,
                folder.join(data),
                entry.path(),
            ));
        }
    }
    // The latest first.
    exports.sort_by(|a, b| b.cmp(a));
    for (index, (exported_at, directory, export)) in exports.iter().enumerate() {
        let age = now.duration_since(*exported_at).unwrap_or_default();
        let (free, all) = space(folder)?;
        let has_to_go = index >= DIRECTORIES || age > AGE || free < all / 10;
        if has_to_go && directory.is_dir() {
            info!(directory = %directory.display(), "a data directory that was set aside and exported is removed");
            fs::remove_dir_all(directory)?;
        }
        // An export is never removed before its directory.
        if index >= EXPORTS && !directory.exists() {
            fs::remove_file(export)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Goal: only what was exported ever goes, the oldest first. Method: four exported directories and one that was not.
    #[test]
    fn what_was_not_exported_stays() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let now = Timestamp::now();
        let at_age =
            |age| SystemTime::UNIX_EPOCH + Duration::from_millis(now.minus(age).as_millis());
        fs::create_dir(at("not-exported")).unwrap();
        for n in 0..4u64 {
            fs::create_dir(at(&format!("d{n}"))).unwrap();
            let export = File::create(at(&format!("d{n}{SUFFIX}"))).unwrap();
            let age = Duration::from_secs(3600 * n);
            export.set_modified(at_age(age)).unwrap();
        }
        let (free, all) = space(temp.path()).unwrap();
        retire(temp.path(), now).unwrap();
        assert!(at("not-exported").exists());
        // On a disk that is nearly full nothing is kept that was exported.
        let kept = if free < all / 10 { 0 } else { 2 };
        for n in 0..4 {
            assert_eq!(at(&format!("d{n}")).exists(), n < kept, "d{n}");
            assert!(
                at(&format!("d{n}{SUFFIX}")).exists(),
                "exports stay for longer"
            );
        }
        retire(temp.path(), now.plus(AGE + AGE)).unwrap();
        assert!(!at("d0").exists() && at("not-exported").exists());
    }

    /// Goal: what one executor did not export the next one finds, and nothing else. Method: directories with and without an
    /// export, a description without its directory, one that cannot be read.
    #[test]
    fn what_was_not_exported_is_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let position = |text: &str| Position::Mariadb(text.parse().unwrap());
        let beyond = Beyond {
            extras: position("0-1-9"),
            common: position("0-1-7"),
            executed: position("0-1-8"),
        };
        let [exported, moved, unread, waiting] = [1, 2, 3, 4].map(|n| DataId(Uuid::from_u128(n)));
        for data in [exported, moved, unread, waiting] {
            describe(temp.path(), data, &beyond).unwrap();
        }
        for data in [exported, unread, waiting] {
            fs::create_dir(temp.path().join(data.to_string())).unwrap();
        }
        File::create(temp.path().join(format!("{exported}{SUFFIX}"))).unwrap();
        fs::write(temp.path().join(format!("{unread}{DESCRIPTION}")), "{").unwrap();
        let found = unexported(temp.path()).unwrap();
        assert_eq!(found, Some((waiting, beyond)));
        fs::remove_dir(temp.path().join(waiting.to_string())).unwrap();
        assert_eq!(unexported(temp.path()).unwrap(), None);
    }

    #[test]
    fn the_tool_is_told_what_lies_beyond_the_history() {
        let mariadb = |text: &str| Position::Mariadb(text.parse().unwrap());
        assert_eq!(
            selection(&mariadb("0-1-100"), &mariadb("0-1-90,50-1-3")),
            ["--stop-position=0-1-100", "--start-position=0-1-90"]
        );
        assert_eq!(
            selection(&mariadb("0-1-100"), &mariadb("")),
            ["--stop-position=0-1-100"]
        );
    }
}
