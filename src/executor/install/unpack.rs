//! Unpacking a package without letting it out of its folder.
//!
//! A package is a tar file, plain or compressed with gzip or zstd, told apart by its first bytes.
//! Only files, folders and links are taken from it; a name or a link that leads out of the folder,
//! a device or a pipe is refused, and with it the package. Owners and special permission bits are
//! not taken over.

use std::{
    fs::{DirBuilder, File},
    io::{self, BufReader, Read, Seek},
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
};

use tar::EntryType;

/// How much a package may grow to: a full MySQL tarball unpacks to 3 GiB.
const MAX_BYTES: u64 = 16 << 30;

/// How many files a package may have: a full MySQL tarball with its tests has 25,000.
const MAX_ENTRIES: usize = 200_000;

/// A package cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be read to its end, or what is in it cannot be written.
    #[error("it cannot be read or written; it must be a tar, tar.gz or tar.zst")]
    Read(#[source] io::Error),
    /// It would write outside of its folder, or hold what no package needs.
    #[error("its entry {entry} leads out of the package or is neither file, folder nor link")]
    Escapes {
        /// The entry.
        entry: PathBuf,
    },
    /// It is too large.
    #[error("it has more than {MAX_ENTRIES} entries or {MAX_BYTES} bytes")]
    TooLarge,
}

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Unpacks `package` into `folder`, which is made if need be.
///
/// # Errors
/// When the package is damaged, too large, or not to be trusted. What was unpacked until then stays.
pub fn unpack(package: &Path, folder: &Path) -> Result<(), UnpackError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut file = File::open(package)?;
    let mut start = [0; 4];
    let length = file.read(&mut start)?;
    file.rewind()?;
    match &start[..length] {
        [0x28, 0xb5, 0x2f, 0xfd] => unpack_tar(zstd::stream::read::Decoder::new(file)?, folder),
        [0x1f, 0x8b, ..] => unpack_tar(
            flate2::read::MultiGzDecoder::new(BufReader::new(file)),
            folder,
        ),
        _ => unpack_tar(BufReader::new(file), folder),
    }
}

fn unpack_tar(package: impl Read, folder: &Path) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(package.take(MAX_BYTES));
    let mut bytes = 0u64;
    for (number, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        bytes = bytes.saturating_add(entry.size());
        if number >= MAX_ENTRIES || bytes >= MAX_BYTES {
            return Err(UnpackError::TooLarge);
        }
        let path = entry.path()?.into_owned();
        let link = entry.link_name()?.map(|link| link.into_owned());
        let stays = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory => stays_inside(&path, Path::new("")),
            EntryType::Symlink => {
                let from = path.parent().unwrap_or(Path::new(""));
                stays_inside(&path, Path::new(""))
                    && link.is_some_and(|link| stays_inside(&link, from))
            }
            EntryType::Link => {
                stays_inside(&path, Path::new(""))
                    && link.is_some_and(|link| stays_inside(&link, Path::new("")))
            }
            // Headers that concern the archive itself.
            EntryType::XGlobalHeader => continue,
            _ => false,
        };
        // The tar crate on its part refuses to write through a link that leads elsewhere.
        if !stays || !entry.unpack_in(folder)? {
            return Err(UnpackError::Escapes { entry: path });
        }
    }
    Ok(())
}

/// Whether `path`, read from the folder `from` of the package, never leaves the package.
fn stays_inside(path: &Path, from: &Path) -> bool {
    let mut depth = from
        .components()
        .filter(|c| matches!(c, Component::Normal(_)))
        .count();
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::{
        fs,
        io::Write,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    /// A tar with one entry; its name is written as it is, which the tar crate's own writer refuses
    /// for names that are not good.
    fn tar(kind: EntryType, name: &str, link: &str, content: &str) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o6755);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, content.as_bytes()).unwrap();
        builder.into_inner().unwrap()
    }

    fn try_unpack(bytes: &[u8]) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let temp = tempfile::tempdir().unwrap();
        let package = temp.path().join("package.any");
        fs::write(&package, bytes).unwrap();
        let result = unpack(&package, &temp.path().join("folder"));
        (temp, result)
    }

    #[test]
    fn the_compression_is_told_by_the_first_bytes() {
        let plain = tar(EntryType::Regular, "bin/mysqld", "", "text");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let zst = zstd::encode_all(&plain[..], 1).unwrap();
        for package in [plain, gz.finish().unwrap(), zst] {
            let (temp, result) = try_unpack(&package);
            result.unwrap();
            let file = temp.path().join("folder/bin/mysqld");
            assert_eq!(fs::read_to_string(&file).unwrap(), "text");
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o755, "no setuid bit is taken over");
            assert_eq!(
                fs::metadata(&file).unwrap().uid(),
                nix::unistd::geteuid().as_raw()
            );
        }
    }

    /// Goal: nothing is written outside. Method: every way out that a tar has.
    #[test]
    fn a_package_cannot_leave_its_folder() {
        for (kind, name, link) in [
            (EntryType::Regular, "../outside", ""),
            (EntryType::Regular, "/tmp/cotton-outside", ""),
            (EntryType::Regular, "a/../../outside", ""),
            (EntryType::Symlink, "link", "/etc"),
            (EntryType::Symlink, "a/link", "../../outside"),
            (EntryType::Link, "link", "../outside"),
            (EntryType::Link, "link", "/etc/passwd"),
            (EntryType::Char, "device", ""),
            (EntryType::Fifo, "pipe", ""),
        ] {
            let (temp, result) = try_unpack(&tar(kind, name, link, ""));
            assert!(
                matches!(result, Err(UnpackError::Escapes { .. })),
                "{kind:?} {name} {result:?}"
            );
            assert!(!temp.path().join("outside").exists());
            assert!(!Path::new("/tmp/cotton-outside").exists());
        }
    }

    #[test]
    fn links_inside_are_fine() {
        let (_temp, result) =
            try_unpack(&tar(EntryType::Symlink, "bin/mysqld", "../sbin/mysqld", ""));
        result.unwrap();
    }

    #[test]
    fn damaged_packages_are_refused() {
        let good = tar(EntryType::Regular, "bin/mysqld", "", &"text".repeat(1000));
        let cut = zstd::encode_all(&good[..], 1).unwrap();
        for package in [
            &b"this is no tar file at all"[..],
            &good[..700],
            &cut[..cut.len() / 2],
        ] {
            assert!(try_unpack(package).1.is_err());
        }
    }
}
