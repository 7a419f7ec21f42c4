//! Where a password comes from: a file, standard input or the terminal; never an argument.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::secret::Secret;

/// Where the password comes from.
#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    /// The file with the password, or - for standard input; a line end after it is left out.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// No password file is larger.
const MAX_BYTES: u64 = 4096;

impl PasswordArgs {
    /// The password of the file, if one was named.
    pub fn given(&self) -> anyhow::Result<Option<Secret>> {
        match &self.password_file {
            None => Ok(None),
            Some(path) if path == Path::new("-") => read(io::stdin().lock())
                .context("read the password from standard input")
                .map(Some),
            Some(path) => {
                let file = std::fs::File::open(path);
                let password = file.map_err(anyhow::Error::from).and_then(read);
                password
                    .with_context(|| format!("read the password from {}", path.display()))
                    .map(Some)
            }
        }
    }

    /// The password of the file, or what is typed when there is a person to ask.
    pub fn given_or_asked(&self, cluster: &str) -> anyhow::Result<Secret> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        if !io::stdin().is_terminal() {
            bail!(
                "the password of {cluster} is needed: give --password-file FILE, or - for standard input"
            );
        }
        ask(&format!("Password of {cluster}: ")).context("ask for the password")
    }
}

fn read(source: impl io::Read) -> anyhow::Result<Secret> {
    let mut text = zeroize::Zeroizing::new(String::new());
    source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("it is larger than {MAX_BYTES} bytes");
    }
    without_line_end(&text)
}

fn without_line_end(text: &str) -> anyhow::Result<Secret> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        bail!("it is empty");
    }
    Ok(Secret::new(line))
}

fn ask(question: &str) -> anyhow::Result<Secret> {
    let mut stderr = io::stderr();
    write!(stderr, "{question}")?;
    stderr.flush()?;
    let mut line = zeroize::Zeroizing::new(String::new());
    {
        let _silent = Silent::start()?;
        io::stdin().lock().read_line(&mut line)?;
    }
    writeln!(stderr)?;
    without_line_end(&line)
}

/// The terminal shows nothing of what is typed while this lives.
struct Silent(Termios);

impl Silent {
    fn start() -> nix::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // The terminal is gone if this fails.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn one_line_end_is_left_out() {
        for (text, password) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a ", " a "),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().expose(), password);
        }
        assert!(read(&b"\n"[..]).is_err());
        assert!(read(&[b'x'; 5000][..]).is_err());
    }
}
