//! Answers in JSON. An error is `{"error":{"code","message","field"?}}` and says what to do about it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error on its way to the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
    /// Seconds, for `Retry-After`.
    retry_after: Option<u64>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None, retry_after: None }
    }

    /// 400.
    pub(super) fn bad_request(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, "bad_request", message) }
    }

    /// 404.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409; what the asker wants to go on from is gone.
    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 413.
    pub(super) fn too_long(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", message)
    }

    /// 503.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        let fault = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(1), ..fault }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn field(self, field: Option<&str>) -> Self {
        Self { field: field.map(str::to_owned), ..self }
    }

    /// The body.
    pub(super) fn text(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Detail<'a>,
        }
        #[derive(Serialize)]
        struct Detail<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
        }
        let detail = Detail { code: self.code, message: &self.message, field: self.field.as_deref() };
        text(&Body { error: detail })
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = body(self.status, JSON, self.text());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("apikey"));
        }
        response
    }
}

/// A body of JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    body(status, JSON, text(value))
}

/// A body of a type.
pub(super) fn body(status: StatusCode, content_type: &'static str, text: impl Into<axum::body::Body>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], text.into()).into_response()
}

/// JSON's text.
pub(super) fn text(value: &impl Serialize) -> String {
    simd_json::to_string(value).expect("plain structs of strings, numbers and flags serialise")
}

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";
