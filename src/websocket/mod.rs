//! RFC 6455 without I/O: bytes in, messages out, and back.
//!
//! - [`parse_request`] reads the upgrade request, [`accept_response`] and [`Refusal::response`] answer it;
//!   [`client_request`] and [`parse_response`] are the other side.
//! - [`Decoder`] reads frames from arbitrarily split input and yields whole messages. A frame that lies whole in the
//!   caller's buffer is unmasked in place and never copied.
//! - `put_*` functions append whole frames, header and payload contiguous, to a buffer.
//!
//! It never reads a clock, draws entropy (keys and masks are arguments) or decides policy: paths, origins and tokens
//! are judged by the caller. No extension is negotiated, so a reserved bit is an error.

mod client;
mod decoder;
mod encoder;
mod handshake;
mod mask;
mod opcode;
mod query;
mod refusal;
mod utf8;

pub use client::{Accepted, ResponseError, client_key, client_request, parse_response};
pub use decoder::{DecodeError, Decoder, Message, Role};
pub use encoder::{
    CLOSE_TEXT_BYTES_MAX, put_binary, put_close, put_masked_close, put_masked_frame, put_ping, put_pong, put_text,
};
pub use handshake::{Method, Page, Request, Upgrade, accept_response, json_response, page_response, parse_request};
pub use mask::apply_mask;
pub use opcode::Opcode;
pub use query::{percent_decode, query_parameter};
pub use refusal::Refusal;
pub use utf8::{InvalidUtf8, valid_prefix};
