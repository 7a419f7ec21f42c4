//! The settings of the backup store: `--backup-store` and `--backup-store-args`.

use serde_json::{Map, Value};

use super::parse;
use crate::cluster::backup::BackupStore;

/// The options of `--backup-store-args`.
const OPTIONS: &str = "the options are url, region, endpoint, credentials, key and rate_mib, as in {\"url\": \"s3://backups/cotton\", \"region\": \"eu-central-1\"}";

/// What people write for the options that are secret.
const SECRETS: [&str; 5] = [
    "access_key_id",
    "secret_access_key",
    "session_token",
    "password",
    "secret",
];

/// Reads `--backup-store-args` beside the URL of `--backup-store`, if that is given. `None`: there is no store.
pub(super) fn store(args: &str, url: Option<&str>) -> Result<Option<BackupStore>, String> {
    let value: Value =
        serde_json::from_str(args).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(mut options) = value else {
        return Err(format!("it is not a JSON object; {OPTIONS}"));
    };
    if options.is_empty() && url.is_none() {
        return Ok(None);
    }
    let in_options = text(&mut options, "url")?;
    let url = match (in_options, url) {
        (Some(one), Some(other)) if one != other => {
            return Err(format!(
                "its url is {one:?} and --backup-store is {other:?}; give one of them"
            ));
        }
        (Some(url), _) => url,
        (None, Some(url)) => url.to_owned(),
        (None, None) => return Err(format!("it has no url; {OPTIONS}")),
    };
    let store = BackupStore {
        url,
        region: text(&mut options, "region")?,
        endpoint: text(&mut options, "endpoint")?,
        credentials: path(&mut options, "credentials")?,
        key: path(&mut options, "key")?,
        rate_mib: rate(&mut options)?,
    };
    match options.keys().next() {
        None => Ok(Some(store)),
        Some(key) if SECRETS.contains(&key.as_str()) => Err(format!(
            "{key} must not stand here, where everybody can read it; name a file with the YAML keys username and password as credentials"
        )),
        Some(key) => Err(format!("it has the unknown key {key:?}; {OPTIONS}")),
    }
}

fn text(options: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match options.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(format!("the value of {name} is not a text")),
    }
}

fn path(options: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    let Some(text) = text(options, name)? else {
        return Ok(None);
    };
    let path = parse::absolute_path(&text).map_err(|error| format!("{name}: {error}"))?;
    Ok(Some(path.to_string_lossy().into_owned()))
}

fn rate(options: &mut Map<String, Value>) -> Result<u32, String> {
    match options.remove("rate_mib") {
        None => Ok(0),
        Some(value) => parse::copy_rate(&value.to_string())
            .map_err(|error| format!("the value of rate_mib: {error}")),
    }
}
