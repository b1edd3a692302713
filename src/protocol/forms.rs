//! A stream's frames in the other dialects, made of dialect D's.

use super::gateway::FrameForm;
use super::routes::Routes;
use crate::frame::{Form, Original, Transcode, View};

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
        if view == View::Advance || !form.transcode(wire, origin, self.routes, out) {
            form.advance(out, stream, item.place, item.prev);
        }
    }
}
