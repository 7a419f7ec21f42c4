//! HTTP basic authentication of frameworks, from a credentials file.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// Who may ask, and how they prove it.
pub struct Credentials(HashMap<String, Secret>);

/// Why a credentials file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read the credentials file {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is neither of the two forms that Mesos takes.
    #[error(
        "read the credentials file {path}: it is neither JSON like {{\"credentials\": [{{\"principal\": \
         \"...\", \"secret\": \"...\"}}]}} nor lines of a principal and a secret"
    )]
    Form {
        /// The file.
        path: String,
    },
}

#[derive(Deserialize)]
struct File {
    credentials: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    principal: String,
    secret: String,
}

impl Credentials {
    /// Reads the file that Mesos masters take as `--credentials`.
    ///
    /// # Errors
    ///
    /// [`Error`], which never quotes the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: shown(),
            source,
        })?;
        let known = Self::parse(&text).ok_or_else(|| Error::Form { path: shown() })?;
        Ok(Self(known))
    }

    fn parse(text: &str) -> Option<HashMap<String, Secret>> {
        if text.trim_start().starts_with('{') {
            let file: File = serde_json::from_str(text).ok()?;
            let pairs = file.credentials.into_iter();
            return Some(
                pairs
                    .map(|line| (line.principal, Secret::new(line.secret)))
                    .collect(),
            );
        }
        let mut known = HashMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (principal, secret) = line.trim().split_once(char::is_whitespace)?;
            known.insert(principal.to_owned(), Secret::new(secret.trim()));
        }
        Some(known)
    }

    /// The principal that an `Authorization` header proves.
    pub fn check(&self, header: &str) -> Option<String> {
        let encoded = header.strip_prefix("Basic ")?;
        let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
        let (principal, secret) = text.split_once(':')?;
        let expected = self.0.get(principal)?;
        let same: bool = expected.expose().as_bytes().ct_eq(secret.as_bytes()).into();
        same.then(|| principal.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn both_forms_are_read_and_only_the_right_secret_counts() {
        let json = r#"{"credentials": [{"principal": "cotton", "secret": "s3cret"}]}"#;
        for text in [json, "cotton s3cret\n"] {
            let known = Credentials(Credentials::parse(text).unwrap());
            assert_eq!(
                known.check("Basic Y290dG9uOnMzY3JldA==").as_deref(),
                Some("cotton")
            );
            assert_eq!(known.check("Basic Y290dG9uOndyb25n"), None);
            assert_eq!(known.check("Bearer x"), None);
        }
        assert!(Credentials::parse("lonely\n").is_none());
    }
}
