//! A stream's frames in the other dialects, made of dialect D's.

use crate::frame::{Form, Item, Transcode, View};
use crate::id::StreamHandle;
use crate::protocol::routes::Routes;

/// Transcodes by the type table, which names the types of relayed frames.
#[derive(Clone, Copy, Debug)]
pub struct Forms<'a> {
    /// The type table.
    pub routes: &'a Routes,
}

impl Transcode for Forms<'_> {
    fn transcode(&self, form: Form, view: View, frame: &[u8], item: &Item, stream: StreamHandle, out: &mut Vec<u8>) {
        match (form, view) {
            (Form::Frames, View::Whole) => out.extend_from_slice(frame),
            (Form::Frames, View::Advance) => super::frames::write::advance(out, stream, item.place, item.prev),
            (Form::Gateway | Form::Rooms, _) => {}
        }
    }
}
