//! Files that are whole or not there.

use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file so that after a crash it holds either the old or the new text.
///
/// # Errors
///
/// What the file system says.
pub fn write_atomically(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(folder)?.sync_all()
}
