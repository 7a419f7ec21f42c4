//! `--installer-args`: where servers come from. Pure.

use serde_json::{Map, Value};

use crate::cluster::{
    configuration::{Package, is_package_name},
    control::{Installer, ServerKind},
};

const FORMS: &str = "give {\"mysqld\": PATH} or {\"package\": URL, \"sha256\": HEX}";

const NAMED: &str = "beside it \"packages\" may stand, such as {\"11.8\": {\"package\": URL, \"sha256\": HEX, \"server\": \"mariadb 11.8.6\"}}";

/// Where servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installers {
    /// For clusters that name no package.
    pub default: Installer,
    /// What clusters can choose, by name.
    pub named: Vec<Package>,
}

pub(super) fn installers(text: &str) -> Result<Installers, String> {
    let value =
        serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error}); {FORMS}"))?;
    let Value::Object(mut object) = value else {
        return Err(format!("it is not a JSON object; {FORMS}"));
    };
    let packages = match object.remove("packages") {
        None => Map::new(),
        Some(Value::Object(packages)) => packages,
        Some(_) => return Err(format!("packages is not a JSON object; {NAMED}")),
    };
    let named = packages.into_iter().map(|(name, value)| {
        named(&name, value).map_err(|fault| format!("the package {name:?}: {fault}"))
    });
    Ok(Installers {
        named: named.collect::<Result<_, _>>()?,
        default: installer(object)?,
    })
}

fn named(name: &str, value: Value) -> Result<Package, String> {
    if !is_package_name(name) {
        return Err(
            "a name has 1 to 64 letters, digits, '.', '_' and '-', and is not default".to_owned(),
        );
    }
    let Value::Object(mut object) = value else {
        return Err(format!("it is not a JSON object; {NAMED}"));
    };
    let server = object.remove("server");
    let server = server
        .as_ref()
        .and_then(Value::as_str)
        .and_then(read_server);
    let server = server
        .ok_or("server must say what is in it, such as \"mariadb 11.8.6\" or \"mysql 9.7.4\"")?;
    let installer = installer(object)?;
    if installer == Installer::Search {
        return Err(FORMS.to_owned());
    }
    Ok(Package {
        name: name.to_owned(),
        installer,
        server,
    })
}

fn read_server(text: &str) -> Option<ServerKind> {
    let (flavour, version) = text.split_once(' ')?;
    Some(ServerKind {
        flavour: flavour.parse().ok()?,
        version: version.trim().parse().ok()?,
    })
}

fn installer(mut object: Map<String, Value>) -> Result<Installer, String> {
    let mut take = |key: &str| match object.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("the value of {key} is not a text; {FORMS}")),
    };
    let (mysqld, package, sha256) = (take("mysqld")?, take("package")?, take("sha256")?);
    if let Some(key) = object.keys().next() {
        return Err(format!("it has the unknown key {key:?}; {FORMS}; {NAMED}"));
    }
    match (mysqld, package, sha256) {
        (None, None, None) => Ok(Installer::Search),
        (Some(mysqld), None, None) if mysqld.starts_with('/') => {
            Ok(Installer::Installed { mysqld })
        }
        (Some(mysqld), None, None) => Err(format!(
            "mysqld must be an absolute path on the agents, not {mysqld:?}"
        )),
        (None, Some(package), sha256) => {
            let package = package_location(package)?;
            let sha256 = sha256.map(|hex| digest(&hex)).transpose()?;
            Ok(Installer::Package { package, sha256 })
        }
        (None, None, Some(_)) => Err(format!("sha256 is there without package; {FORMS}")),
        (Some(_), _, _) => Err(format!("mysqld stands beside package or sha256; {FORMS}")),
    }
}

fn package_location(package: String) -> Result<String, String> {
    let fetchable = ["http://", "hdfs://", "file:///", "/"]
        .iter()
        .any(|start| package.starts_with(start));
    if fetchable && !package.contains(char::is_whitespace) {
        Ok(package)
    } else {
        Err(format!(
            "package must be an http://, hdfs:// or file:/// URL or an absolute path on the agents, not {package:?}"
        ))
    }
}

fn digest(hex: &str) -> Result<String, String> {
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(hex.to_ascii_lowercase())
    } else {
        Err("sha256 must have 64 hexadecimal digits; see the output of sha256sum".to_owned())
    }
}
