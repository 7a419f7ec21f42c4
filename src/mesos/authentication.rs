//! How the framework proves to a Mesos master who it is, and an executor to its agent.
//!
//! Masters started with `--authenticate_http_frameworks` expect HTTP basic authentication. Agents
//! started with `--authenticate_http_executors` give each executor a token, which comes back as a
//! bearer token. Source: the Mesos page "Authentication".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::secret::Secret;

/// The principal of a framework and its secret, from `--framework-authentication-file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The name under which Mesos authorizes the framework. `FrameworkInfo.principal` must be equal.
    pub principal: String,
    /// The password of that name.
    pub secret: Secret,
}

/// The value of a header that may not be shown. Sent, but left out of debug output.
pub(super) type Authorization = HeaderValue;

impl Credential {
    /// The value of the `Authorization` header: HTTP basic authentication.
    pub(super) fn authorization(&self) -> Authorization {
        let plain = zeroize::Zeroizing::new(format!("{}:{}", self.principal, self.secret.expose()));
        let text = format!("Basic {}", STANDARD.encode(plain.as_bytes()));
        sensitive(&text).expect("base64 has only characters that a header may have")
    }
}

/// The value of the `Authorization` header for an executor's token, or `None` when the token holds
/// characters that no header can carry.
pub(super) fn bearer(token: &Secret) -> Option<Authorization> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Option<Authorization> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_credential_becomes_the_recorded_header_and_is_not_shown() {
        let credential = Credential {
            principal: "cotton".into(),
            secret: Secret::new("s3cret"),
        };
        let header = credential.authorization();
        assert_eq!(header, "Basic Y290dG9uOnMzY3JldA==");
        assert!(!format!("{header:?} {credential:?}").contains("cret\""));
        assert!(!format!("{header:?}").contains("Y290"));
    }

    #[test]
    fn a_token_with_a_line_feed_is_no_header() {
        assert_eq!(bearer(&Secret::new("abc")).unwrap(), "Bearer abc");
        assert!(bearer(&Secret::new("abc\nX-Evil: 1")).is_none());
    }
}
