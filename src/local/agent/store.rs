//! The agent's records on disk: its id, what is reserved, and one file per run of an executor.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::local::files::write_atomically;

use super::core::{ExecutorKey, Record};
use super::environment;
use super::operations::Checkpoint;

/// The work directory's records.
#[derive(Debug, Clone)]
pub struct Store {
    work_dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Listener {
    port: u16,
}

impl Store {
    /// The records in a work directory.
    pub fn new(work_dir: &Path) -> Self {
        Self {
            work_dir: work_dir.to_owned(),
        }
    }

    fn identity(&self) -> PathBuf {
        self.work_dir.join("meta").join("agent.json")
    }

    fn listener(&self) -> PathBuf {
        self.work_dir.join("meta").join("listener.json")
    }

    /// The id of a former run.
    ///
    /// # Errors
    ///
    /// A file that is there but cannot be read.
    pub fn read_id(&self) -> io::Result<Option<String>> {
        Ok(read::<Identity>(&self.identity())?.map(|identity| identity.id))
    }

    /// Keeps the id for the next run.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write_id(&self, id: &str) -> io::Result<()> {
        self.write_small(&self.identity(), &Identity { id: id.to_owned() })
    }

    /// Forgets the id.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn remove_id(&self) -> io::Result<()> {
        match std::fs::remove_file(self.identity()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// What a former run had reserved. It belongs to the directory, not to the agent's id.
    ///
    /// # Errors
    ///
    /// A file that is there but cannot be read.
    pub fn read_checkpoint(&self) -> io::Result<Checkpoint> {
        Ok(read(&self.checkpoint())?.unwrap_or_default())
    }

    /// Keeps what is reserved.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write_checkpoint(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        self.write_small(&self.checkpoint(), checkpoint)
    }

    fn checkpoint(&self) -> PathBuf {
        self.work_dir.join("meta").join("resources.json")
    }

    /// The port of a former run.
    ///
    /// # Errors
    ///
    /// A file that is there but cannot be read.
    pub fn read_port(&self) -> io::Result<Option<u16>> {
        Ok(read::<Listener>(&self.listener())?.map(|listener| listener.port))
    }

    /// Keeps the port for the next run.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write_port(&self, port: u16) -> io::Result<()> {
        self.write_small(&self.listener(), &Listener { port })
    }

    fn write_small<T: Serialize>(&self, path: &Path, value: &T) -> io::Result<()> {
        std::fs::create_dir_all(self.work_dir.join("meta"))?;
        write_atomically(path, &serde_json::to_vec(value)?)
    }

    /// Keeps what is known of an executor.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, agent_id: &str, key: &ExecutorKey, record: &Record) -> io::Result<()> {
        let path = environment::record(&self.work_dir, agent_id, key, &record.container_id);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        write_atomically(&path, &serde_json::to_vec(record)?)
    }

    /// Forgets an executor; nothing happens if it was not stored.
    pub fn remove(&self, agent_id: &str, key: &ExecutorKey, container_id: &str) {
        let path = environment::record(&self.work_dir, agent_id, key, container_id);
        if let Some(run) = path.parent() {
            let _ = std::fs::remove_dir_all(run);
            // The executor's and framework's directories go when they are empty.
            for folder in run.ancestors().skip(1).take(5) {
                if std::fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
    }

    /// All records of an agent.
    ///
    /// # Errors
    ///
    /// A record that cannot be read: an executor may run that nobody would know of.
    pub fn read_all(&self, agent_id: &str) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        if agent_id.is_empty() {
            // A new agent knows nothing of what a former one in its directory has run.
            return Ok(found);
        }
        collect(
            &self.work_dir.join("meta").join("slaves").join(agent_id),
            &mut found,
        )?;
        Ok(found)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn collect(folder: &Path, found: &mut Vec<Record>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.file_name().is_some_and(|name| name == "run.json") {
            found.push(serde_json::from_slice(&std::fs::read(&path)?)?);
        }
    }
    Ok(())
}
