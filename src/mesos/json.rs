//! Messages as the JSON that Mesos writes and reads.
//!
//! It is not protobuf's canonical JSON: names are those of the `.proto` file, 64 bit integers are
//! numbers, doubles always show a fraction, and a field with a stated default is written even when
//! it was never set, unless it is deprecated. When reading, unknown fields and unknown names of an
//! optional enum are passed over, numbers and booleans may stand in quotes, `null` means unset, and
//! required fields must be there.
//!
//! The product itself speaks protobuf; JSON is for the stand-in, for people with `curl`, and for
//! the leader's record in ZooKeeper.
//!
//! Source: recorded messages under `tests/fixtures/mesos`, and what `JSON::protobuf` and
//! `protobuf::parse` of Mesos' stout library are documented to do.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Name;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::Value as Json;

/// Every message of `proto/`, by name.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[allow(
        clippy::expect_used,
        reason = "the file is part of the program; a test decodes it"
    )]
    DescriptorPool::decode(include_bytes!("v1.descriptor.bin").as_slice())
        .expect("src/mesos/v1.descriptor.bin is a valid descriptor set")
});

/// Why a text or bytes are not the message that was asked for. The sentences are those of Mesos.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON; with the line and what stands there.
    #[error("Failed to parse body into JSON: syntax error at line {line} near: {near}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// The rest of the line from where the text stops to be JSON.
        near: String,
    },
    /// It is JSON, but not this message.
    #[error("Failed to convert JSON into {message} protobuf: {reason}")]
    Convert {
        /// The message's short name, for example `Call`.
        message: String,
        /// What is wrong.
        reason: String,
    },
    /// It is not protobuf, or a required field is missing.
    #[error("Failed to parse body into {message} protobuf")]
    Binary {
        /// The message's short name.
        message: String,
    },
}

/// Gives the description of a message of `proto/`.
#[must_use]
pub fn descriptor<M: Name>() -> MessageDescriptor {
    #[allow(
        clippy::expect_used,
        reason = "both are generated from the same files by one test"
    )]
    POOL.get_message_by_name(&M::full_name())
        .expect("the descriptor set holds every generated message")
}

/// Writes a message as compact JSON.
#[must_use]
pub fn to_string<M: Name>(message: &M) -> String {
    value_of(message).to_string()
}

/// Gives a message as a JSON value.
#[must_use]
pub fn value_of<M: Name>(message: &M) -> Json {
    let dynamic = dynamic(message);
    #[allow(
        clippy::expect_used,
        reason = "keys are strings and no step of it can fail"
    )]
    serde_json::to_value(Written(&dynamic)).expect("a message is always representable as JSON")
}

/// Reads a message from JSON text.
///
/// # Errors
///
/// [`Error::Syntax`] and [`Error::Convert`].
pub fn from_slice<M: Name + Default>(text: &[u8]) -> Result<M, Error> {
    let value: Json = serde_json::from_slice(text).map_err(|error| syntax(text, &error))?;
    from_value(&value)
}

/// Reads a message from a JSON value.
///
/// # Errors
///
/// [`Error::Convert`].
pub fn from_value<M: Name + Default>(value: &Json) -> Result<M, Error> {
    let descriptor = descriptor::<M>();
    let convert = |reason| Error::Convert {
        message: descriptor.name().to_owned(),
        reason,
    };
    let Json::Object(_) = value else {
        return Err(convert("Expecting a JSON object".to_owned()));
    };
    let dynamic = read_message(&descriptor, value).map_err(convert)?;
    let missing = missing_fields(&dynamic);
    if !missing.is_empty() {
        return Err(convert(format!(
            "Missing required fields: {}",
            missing.join(", ")
        )));
    }
    dynamic
        .transcode_to()
        .map_err(|_| convert("it does not fit the message".to_owned()))
}

/// Reads a message from protobuf and, unlike prost, insists on its required fields.
///
/// # Errors
///
/// [`Error::Binary`].
pub fn from_protobuf<M: Name + Default>(bytes: &[u8]) -> Result<M, Error> {
    let descriptor = descriptor::<M>();
    let error = || Error::Binary {
        message: descriptor.name().to_owned(),
    };
    let dynamic = DynamicMessage::decode(descriptor.clone(), bytes).map_err(|_| error())?;
    if !missing_fields(&dynamic).is_empty() {
        return Err(error());
    }
    dynamic.transcode_to().map_err(|_| error())
}

/// The message as prost-reflect's dynamic form.
#[must_use]
pub fn dynamic<M: Name>(message: &M) -> DynamicMessage {
    #[allow(
        clippy::expect_used,
        reason = "the message was generated from the same descriptor"
    )]
    DynamicMessage::decode(descriptor::<M>(), message.encode_to_vec().as_slice())
        .expect("a message fits its own descriptor")
}

/// The dotted paths of required fields that are not set, in the order of the message.
#[must_use]
pub fn missing_fields(message: &DynamicMessage) -> Vec<String> {
    let mut missing = Vec::new();
    collect_missing(message, "", &mut missing);
    missing
}

fn collect_missing(message: &DynamicMessage, path: &str, missing: &mut Vec<String>) {
    for field in message.descriptor().fields() {
        let name = field.name();
        if !message.has_field(&field) {
            if field.cardinality() == Cardinality::Required {
                missing.push(format!("{path}{name}"));
            }
            continue;
        }
        match message.get_field(&field).as_ref() {
            Value::Message(inner) => collect_missing(inner, &format!("{path}{name}."), missing),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Value::Message(inner) = item {
                        collect_missing(inner, &format!("{path}{name}[{index}]."), missing);
                    }
                }
            }
            _ => {}
        }
    }
}

// === writing ===

/// A message on its way to JSON.
struct Written<'a>(&'a DynamicMessage);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.0.descriptor().fields() {
            if self.0.has_field(&field) || states_default(&field) {
                let value = self.0.get_field(&field);
                map.serialize_entry(field.name(), &WrittenValue(&field.kind(), &value))?;
            }
        }
        map.end()
    }
}

/// Mesos writes a default that the `.proto` file states, except that of a deprecated field.
fn states_default(field: &FieldDescriptor) -> bool {
    let proto = field.field_descriptor_proto();
    proto.default_value.is_some()
        && !proto
            .options
            .as_ref()
            .is_some_and(|options| options.deprecated())
}

struct WrittenValue<'a>(&'a Kind, &'a Value);

impl Serialize for WrittenValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(kind, value) = self;
        match value {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::I32(value) => serializer.serialize_i32(*value),
            Value::I64(value) => serializer.serialize_i64(*value),
            Value::U32(value) => serializer.serialize_u32(*value),
            Value::U64(value) => serializer.serialize_u64(*value),
            Value::F32(value) => serializer.serialize_f64(f64::from(*value)),
            Value::F64(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.serialize_str(&BASE64.encode(value)),
            Value::EnumNumber(number) => {
                let known = kind.as_enum().and_then(|kind| kind.get_value(*number));
                match known {
                    Some(known) => serializer.serialize_str(known.name()),
                    None => serializer.serialize_i32(*number),
                }
            }
            Value::Message(message) => Written(message).serialize(serializer),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&WrittenValue(kind, item))?;
                }
                list.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(
                        &key_text(key),
                        &WrittenValue(&map_value_kind(kind), value),
                    )?;
                }
                map.end()
            }
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// A map is a list of entries; their second field is the value.
fn map_value_kind(kind: &Kind) -> Kind {
    match kind {
        Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
        other => other.clone(),
    }
}

// === reading ===

fn read_message(descriptor: &MessageDescriptor, value: &Json) -> Result<DynamicMessage, String> {
    let mut message = DynamicMessage::new(descriptor.clone());
    let Json::Object(fields) = value else {
        return Err("Expecting a JSON object".to_owned());
    };
    for (name, value) in fields {
        let Some(field) = descriptor.get_field_by_name(name) else {
            continue;
        };
        if let Some(value) = read_field(&field, value)? {
            message.set_field(&field, value);
        }
    }
    Ok(message)
}

/// `None` leaves the field unset.
fn read_field(field: &FieldDescriptor, value: &Json) -> Result<Option<Value>, String> {
    match value {
        Json::Null => Ok(None),
        Json::Object(entries) if field.is_map() => read_map(field, entries).map(Some),
        Json::Array(items) if field.is_list() => {
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                list.extend(read_one(field, &field.kind(), item)?);
            }
            Ok(Some(Value::List(list)))
        }
        Json::Array(_) => Err(not_expecting("array", field)),
        one if field.is_list() => {
            Ok(read_one(field, &field.kind(), one)?.map(|one| Value::List(vec![one])))
        }
        one => read_one(field, &field.kind(), one),
    }
}

fn read_map(
    field: &FieldDescriptor,
    entries: &serde_json::Map<String, Json>,
) -> Result<Value, String> {
    let kind = map_value_kind(&field.kind());
    let mut map = std::collections::HashMap::new();
    for (key, value) in entries {
        if let Some(value) = read_one(field, &kind, value)? {
            map.insert(MapKey::String(key.clone()), value);
        }
    }
    Ok(Value::Map(map))
}

fn read_one(field: &FieldDescriptor, kind: &Kind, value: &Json) -> Result<Option<Value>, String> {
    match value {
        Json::Null => Ok(None),
        Json::Object(_) => match kind {
            Kind::Message(descriptor) => Ok(Some(Value::Message(read_message(descriptor, value)?))),
            _ => Err(not_expecting("object", field)),
        },
        Json::String(text) => read_string(field, kind, text),
        Json::Number(number) => read_number(kind, number)
            .map(Some)
            .ok_or_else(|| not_expecting("number", field)),
        Json::Bool(flag) => match kind {
            Kind::Bool => Ok(Some(Value::Bool(*flag))),
            _ => Err(not_expecting("boolean", field)),
        },
        Json::Array(_) => Err(not_expecting("array", field)),
    }
}

fn not_expecting(what: &str, field: &FieldDescriptor) -> String {
    format!("Not expecting a JSON {what} for field '{}'", field.name())
}

fn read_string(field: &FieldDescriptor, kind: &Kind, text: &str) -> Result<Option<Value>, String> {
    let name = field.name();
    match kind {
        Kind::String => Ok(Some(Value::String(text.to_owned()))),
        Kind::Bytes => match BASE64.decode(text) {
            Ok(bytes) => Ok(Some(Value::Bytes(bytes.into()))),
            Err(error) => Err(format!(
                "Failed to base64 decode bytes field '{name}': {error}"
            )),
        },
        Kind::Enum(descriptor) => match descriptor.get_value_by_name(text) {
            Some(value) => Ok(Some(Value::EnumNumber(value.number()))),
            None if field.cardinality() == Cardinality::Required => {
                Err(format!("Failed to find enum for '{text}'"))
            }
            None => Ok(None),
        },
        Kind::Message(_) => Err(not_expecting("string", field)),
        Kind::Bool => match text {
            "true" => Ok(Some(Value::Bool(true))),
            "false" => Ok(Some(Value::Bool(false))),
            _ => Err(format!(
                "Failed to parse '{text}' as a JSON boolean for field '{name}'"
            )),
        },
        Kind::Double if text == "Infinity" => Ok(Some(Value::F64(f64::INFINITY))),
        Kind::Double if text == "-Infinity" => Ok(Some(Value::F64(f64::NEG_INFINITY))),
        _ => serde_json::from_str::<serde_json::Number>(text)
            .ok()
            .and_then(|number| read_number(kind, &number))
            .map(Some)
            .ok_or_else(|| format!("Failed to parse '{text}' as a JSON number for field '{name}'")),
    }
}

/// Any JSON number fits any number field: fractions are cut off and what is too large is clamped.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "numbers are converted as the C++ casts in Mesos convert them, with saturation"
)]
fn read_number(kind: &Kind, number: &serde_json::Number) -> Option<Value> {
    let signed = || {
        let unsigned = number.as_u64().map(|_| i64::MAX);
        number
            .as_i64()
            .or(unsigned)
            .unwrap_or_else(|| number.as_f64().unwrap_or(0.0) as i64)
    };
    let unsigned = || match number.as_u64() {
        Some(value) => value,
        None => number.as_f64().unwrap_or(0.0) as u64,
    };
    match kind {
        Kind::Double => number.as_f64().map(Value::F64),
        Kind::Float => number.as_f64().map(|value| Value::F32(value as f32)),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Some(Value::I64(signed())),
        Kind::Uint64 | Kind::Fixed64 => Some(Value::U64(unsigned())),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Some(Value::I32(signed() as i32)),
        Kind::Uint32 | Kind::Fixed32 => Some(Value::U32(unsigned() as u32)),
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => None,
    }
}

/// Mesos names the line and the rest of it from the first character that does not fit.
fn syntax(text: &[u8], error: &serde_json::Error) -> Error {
    let line = error.line().max(1);
    let rest = text
        .split(|byte| *byte == b'\n')
        .nth(line - 1)
        .unwrap_or_default();
    let near = rest
        .get(error.column().saturating_sub(1)..)
        .unwrap_or_default();
    Error::Syntax {
        line,
        near: String::from_utf8_lossy(near).into_owned(),
    }
}
