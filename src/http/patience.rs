//! Reading again only what has changed, and waiting until it has.
//!
//! An answer carries an entity tag. Who sends it back in `If-None-Match` (RFC 9110, section 13.1.2) gets 304 as long as
//! there is nothing new; with `Prefer: wait=SECONDS` (RFC 7240, section 4.3) the answer comes when there is, or
//! when that time is over.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};

/// The longest wait for a change; a longer wish is shortened to it. Proxies commonly give a server one minute
/// for its answer, clients too.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How a client says how long it would wait.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How the server says that it did.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The entity tag of an answer. It follows from the content, so that it means the same after a new start.
pub(super) fn tag_of(body: &[u8]) -> HeaderValue {
    let digest = hex::encode(&Sha256::digest(body)[..12]);
    HeaderValue::try_from(format!("\"{digest}\""))
        .expect("hexadecimal digits between quotes are allowed in a header")
}

/// Whether the client knows the content with this tag already.
pub(super) fn knows(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tags = words(headers, &header::IF_NONE_MATCH);
    tags.map(|known| known.strip_prefix("W/").unwrap_or(known))
        .any(|known| known == "*" || known.as_bytes() == tag.as_bytes())
}

/// How long the client would wait for a change: whole seconds. A wish that is not understood counts for
/// nothing, as the standard has it.
pub(super) fn wish(headers: &HeaderMap) -> Duration {
    let seconds = words(headers, &PREFER).find_map(|word| {
        let (name, value) = word.split(';').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("wait")).then_some(value)
    });
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_WAIT)
}

/// The comma-separated words of all headers of a name.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &'static str)| {
            (name.clone(), HeaderValue::from_static(value))
        };
        of.iter().map(pair).collect()
    }

    #[test]
    fn wishes_are_whole_seconds_within_bounds() {
        for (value, seconds) in [
            ("wait=7", 7),
            ("respond-async, WAIT = \"7\"", 7),
            ("wait=7; why=not", 7),
            ("wait=31", 30),
            ("wait=99999999999999999999", 0),
            ("wait=-1", 0),
            ("wait=1.5", 0),
            ("wait", 0),
            ("", 0),
        ] {
            let wished = wish(&headers(&[(PREFER, value)]));
            assert_eq!(wished, Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(wish(&HeaderMap::new()), Duration::ZERO);
    }

    #[test]
    fn tags_are_compared_weakly_and_one_of_several_suffices() {
        let tag = tag_of(b"content");
        assert_ne!(tag, tag_of(b"contents"));
        let text = tag.to_str().unwrap_or_default();
        for (value, known) in [
            (text.to_owned(), true),
            (format!("\"x\", W/{text}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
            (text.trim_matches('"').to_owned(), false),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::try_from(value).unwrap_or(tag.clone());
            headers.insert(header::IF_NONE_MATCH, value.clone());
            assert_eq!(knows(&headers, &tag), known, "{value:?}");
        }
        assert!(!knows(&HeaderMap::new(), &tag));
    }
}
