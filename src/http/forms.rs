//! Form fields, in both encodings: what `curl --form` sends and what `curl --data` sends.
//!
//! The last of a repeated field wins, an empty one counts as not given, and one that is not known is a fault:
//! a misspelt `num_node=5` must not make a cluster of three.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Form as UrlEncoded, FromRequest, Multipart, Request},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::errors::ApiError;
use crate::{cluster::spec::Fault, secret::Secret};

/// The largest body of a request. The longest legal form, in the wordier encoding, has a tenth of it.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The fields of a form.
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads the form of a request.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`], [`ApiError::SlowBody`], [`ApiError::NotAForm`] and
    /// [`ApiError::MalformedForm`].
    pub async fn read(request: Request) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read_bounded(body).await?;
        if bytes.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        let encoding = Encoding::of(&parts.headers)?;
        let request = Request::from_parts(parts, Body::from(bytes));
        let fields = match encoding {
            Encoding::Multipart => read_multipart(request).await?,
            Encoding::UrlEncoded => read_urlencoded(request).await?,
        };
        // Later ones replace earlier ones, and only then are the empty ones left out.
        let mut last: BTreeMap<_, _> = fields.into_iter().collect();
        last.retain(|_, value| !value.is_empty());
        Ok(Self(last))
    }

    /// Takes the value of a field out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes the value of a field out that nobody may see.
    pub fn take_secret(&mut self, name: &str) -> Option<Secret> {
        self.take(name).map(Secret::new)
    }

    /// A fault for each field that was not taken; `known` are the names of those that can be.
    pub fn into_faults(self, known: &[&str]) -> Vec<Fault> {
        let known = known.join(", ");
        let fault = |name: String| {
            // The value may be a password under a misspelt name: only the name is repeated.
            let name: String = name.chars().take(64).collect();
            let detail = format!("there is no form field {name:?} here; the fields are {known}");
            Fault::new(name, detail)
        };
        self.0.into_keys().map(fault).collect()
    }
}

enum Encoding {
    Multipart,
    UrlEncoded,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = headers.get(header::CONTENT_TYPE);
        let text = value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "multipart/form-data" => Ok(Self::Multipart),
            "application/x-www-form-urlencoded" => Ok(Self::UrlEncoded),
            _ => Err(ApiError::NotAForm(text.chars().take(64).collect())),
        }
    }
}

async fn read_bounded(body: Body) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, MAX_BODY_BYTES).collect();
    let Ok(collected) = tokio::time::timeout(BODY_DEADLINE, collected).await else {
        return Err(ApiError::SlowBody {
            seconds: BODY_DEADLINE.as_secs(),
        });
    };
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge {
            limit: MAX_BODY_BYTES,
        }),
        Err(error) => Err(ApiError::MalformedForm(error.to_string())),
    }
}

async fn read_multipart(request: Request) -> Result<Vec<(String, String)>, ApiError> {
    let malformed = |error: &dyn std::fmt::Display| ApiError::MalformedForm(error.to_string());
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|error| malformed(&error.body_text()))?;
    let mut fields = Vec::new();
    while let Some(field) = multipart
        .next_field()
        .await
        .map_err(|error| malformed(&error.body_text()))?
    {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(ApiError::MalformedForm("a part has no name".to_owned()));
        };
        let bytes = field
            .bytes()
            .await
            .map_err(|error| malformed(&error.body_text()))?;
        let value = String::from_utf8(bytes.to_vec())
            .map_err(|_| ApiError::MalformedForm(format!("the value of {name:?} is not UTF-8")))?;
        fields.push((name, value));
    }
    Ok(fields)
}

async fn read_urlencoded(request: Request) -> Result<Vec<(String, String)>, ApiError> {
    // `RawForm` of axum would leave the decoding to us; `Form` of pairs keeps order and repetitions.
    let UrlEncoded(fields) = UrlEncoded::<Vec<(String, String)>>::from_request(request, &())
        .await
        .map_err(|error| ApiError::MalformedForm(error.body_text()))?;
    Ok(fields)
}
