//! Where values come from: flag, environment variable, file, default, in this order.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    Fault,
    flags::{Arguments, CONFIG, FLAGS},
};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub text: String,
    pub source: Source,
}

/// The values of all flags that have one.
pub(super) type Values = BTreeMap<&'static str, Value>;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag | Self::Default => Ok(()),
            Self::Variable(name) => write!(f, " (from the environment variable {name})"),
            Self::File(path) => write!(f, " (from {})", path.display()),
        }
    }
}

/// Finds the value of each flag.
pub(super) fn collect(
    arguments: Arguments,
    environment: &dyn Fn(&str) -> Option<OsString>,
    faults: &mut Vec<Fault>,
) -> Values {
    let mut values: Values = FLAGS
        .iter()
        .filter_map(|flag| {
            let text = flag.default?.to_owned();
            Some((
                flag.name,
                Value {
                    text,
                    source: Source::Default,
                },
            ))
        })
        .collect();
    let variables = from_environment(environment, faults);
    let config = arguments.0.get(CONFIG).cloned();
    let config = config.or_else(|| variables.get(CONFIG).map(|value| value.text.clone()));
    if let Some(path) = config {
        values.extend(from_file(Path::new(&path), faults));
    }
    values.extend(variables);
    values.extend(arguments.0.into_iter().map(|(name, text)| {
        (
            name,
            Value {
                text,
                source: Source::Flag,
            },
        )
    }));
    values
}

fn from_environment(
    environment: &dyn Fn(&str) -> Option<OsString>,
    faults: &mut Vec<Fault>,
) -> Values {
    let mut values = Values::new();
    for flag in FLAGS {
        let name = format!("COTTON_{}", flag.name.replace('-', "_").to_uppercase());
        // An empty variable is how shells and service managers unset one.
        let Some(value) = environment(&name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let source = Source::Variable(name);
        match value.into_string() {
            Ok(text) => {
                values.insert(flag.name, Value { text, source });
            }
            Err(_) => faults.push(Fault::of(flag.name, &source, "the value is not UTF-8")),
        }
    }
    values
}

fn from_file(path: &Path, faults: &mut Vec<Fault>) -> Values {
    let source = Source::File(path.to_owned());
    let mut fault = |detail: String| faults.push(Fault::of(CONFIG, &Source::Flag, detail));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            fault(format!(
                "the file {} cannot be read: {error}",
                path.display()
            ));
            return Values::new();
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            // The parser's whole message quotes the line, which may hold a password.
            let line = error
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            fault(format!(
                "the file {} is not TOML: {} in line {line}",
                path.display(),
                error.message()
            ));
            return Values::new();
        }
    };
    let mut values = Values::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        match FLAGS
            .iter()
            .find(|flag| flag.name == name && flag.name != CONFIG)
        {
            None => fault(format!(
                "the file {} has the unknown key {key:?}; its keys are the names of the flags without their dashes in front",
                path.display()
            )),
            Some(flag) => match as_text(value) {
                Some(text) if values.contains_key(flag.name) => {
                    drop(text);
                    fault(format!(
                        "the file {} has the key {key} in two spellings",
                        path.display()
                    ));
                }
                Some(text) => {
                    values.insert(
                        flag.name,
                        Value {
                            text,
                            source: source.clone(),
                        },
                    );
                }
                None => fault(format!(
                    "in the file {} the value of {key} is a date, which no flag takes",
                    path.display()
                )),
            },
        }
    }
    values
}

/// A value as it would stand on the command line; lists and tables become the JSON that such flags take.
fn as_text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Datetime(_) => None,
        list_or_table => serde_json::to_string(&list_or_table).ok(),
    }
}
