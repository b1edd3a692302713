//! A stream's frames in the other dialects, made of dialect D's.

use super::frames::Header;
use super::gateway::{self, FrameForm};
use super::routes::Routes;
use crate::frame::{Form, Original, Transcode, View};
use crate::message::ErrorCode;

/// Transcodes by the type table, which names the types of relayed frames.
#[derive(Clone, Copy, Debug)]
pub struct Forms<'a> {
    /// The type table.
    pub routes: &'a Routes,
}

impl Transcode for Forms<'_> {
    fn transcode(&self, form: Form, view: View, original: &Original<'_>, out: &mut Vec<u8>) {
        let form = match form {
            Form::Frames => FrameForm::Frames,
            Form::Gateway => FrameForm::Gateway,
            Form::Rooms => FrameForm::Rooms,
        };
        let Original { stream, origin, item, wire } = *original;
        if view == View::Refusal {
            FrameForm::Frames.advance(out, stream, item.place, item.prev);
            let Refusal { code, correlation, message } = Refusal::read(wire);
            return super::frames::write::error(out, code, correlation, &message);
        }
        if view == View::Advance || !form.transcode(wire, origin, self.routes, out) {
            form.advance(out, stream, item.place, item.prev);
        }
    }
}

/// A backend's refusal of a command, as dialect D's ERROR says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// `Internal` for one that is not in the list.
    pub code: ErrorCode,
    /// The command's own number, 0 if it had none.
    pub correlation: u64,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// Reads it out of dialect D's wire frame of the event; total.
    #[must_use]
    pub fn read(wire: &[u8]) -> Self {
        #[derive(Default, serde::Deserialize)]
        struct Body<'a> {
            code: Option<&'a str>,
            #[serde(default)]
            message: String,
            correlation_id: Option<&'a str>,
        }
        let payload = gateway::payload_of(wire).and_then(Header::read).map_or(&[][..], |(_, body)| body);
        let mut text = payload.to_vec();
        let body: Body<'_> = simd_json::from_slice(&mut text).unwrap_or_default();
        let code = ErrorCode::ALL.into_iter().find(|code| Some(code.name()) == body.code);
        let correlation = body.correlation_id.and_then(|id| id.parse().ok()).unwrap_or(0);
        Self { code: code.unwrap_or(ErrorCode::Internal), correlation, message: body.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::frame::{Encode, FrameKind, Item, Origin};
    use crate::id::StreamHandle;
    use crate::protocol::frames::write::{self, FramesEncoder};

    /// A refusal reaches clients of dialect D as its place and an ERROR with the command's own number.
    #[test]
    fn refusals_keep_place_and_number() {
        let item = Item { class: Class::Reliable, key: 0, forgets: false, place: 9, prev: 4 };
        let (stream, kind) = (StreamHandle(6), FrameKind { frame_type: FrameKind::ERROR_TYPE, kind: 0 });
        for (body, code, number, text) in [
            (
                &br#"{"type":"system.error","code":"room_full","message":"no \"room\"","correlation_id":"17"}"#[..],
                ErrorCode::RoomFull,
                17,
                "no \"room\"",
            ),
            (
                br#"{"type":"system.error","code":"odd","message":"m","correlation_id":"c-1"}"#,
                ErrorCode::Internal,
                0,
                "m",
            ),
            (b"[]", ErrorCode::Internal, 0, ""),
        ] {
            let mut wire = Vec::new();
            FramesEncoder.encode(stream, &item, kind, body, &mut wire);
            let (mut got, mut expected) = (Vec::new(), Vec::new());
            let original = Original { stream, origin: Origin::Bus, item: &item, wire: &wire };
            Forms { routes: &Routes::default() }.transcode(Form::Frames, View::Refusal, &original, &mut got);
            write::advance(&mut expected, stream, 9, 4);
            write::error(&mut expected, code, number, text);
            assert_eq!(got, expected);
        }
    }
}
