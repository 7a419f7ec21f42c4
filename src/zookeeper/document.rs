//! The JSON in Cotton's nodes and files: a format number first, everything else after it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most that a goal or a report may take, in bytes. Both are read by many and often; a quarter
/// of what a node can hold leaves room for the other operations of their transactions.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// The JSON of one of our own types.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our types are maps with text keys, which always serialise")
}

/// The same as a tree.
pub(super) fn to_value(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("our types are maps with text keys, which always serialise")
}

/// Checks the format number before anything else is looked at, then reads the document. The error
/// completes "it cannot be used: ...".
pub(super) fn parse<T: DeserializeOwned>(
    document: serde_json::Value,
    known: u32,
) -> Result<T, String> {
    match document.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(known) => {}
        Some(format) => {
            return Err(format!(
                "it has format {format}, and this version of Cotton knows format {known} only"
            ));
        }
        None => return Err("it has no format number".to_owned()),
    }
    serde_json::from_value(document).map_err(|error| error.to_string())
}

/// Reads a goal or a report, of which there is no telling how large it is.
pub(super) fn parse_bounded<T: DeserializeOwned>(data: &[u8], known: u32) -> Result<T, String> {
    if data.len() > MAX_DOCUMENT_BYTES {
        let size = data.len();
        return Err(format!(
            "it has {size} bytes, and {MAX_DOCUMENT_BYTES} is the most"
        ));
    }
    let document = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    parse(document, known)
}
