//! What makes bytes durable: tokio-uring where a trial shows that it works, else pwrite and fdatasync.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What writes the log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WriterChoice {
    /// io_uring if a trial works, else the thread.
    #[default]
    Auto,
    /// io_uring, or the start fails.
    Uring,
    /// pwrite and fdatasync.
    Thread,
}

/// Makes bytes durable, one batch after the other, on one thread.
pub(super) trait Sink {
    /// Writes the bytes and syncs them; gives the buffer back.
    fn write(&mut self, file: &Arc<File>, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>);
}

/// Makes the sink, on the thread that uses it; beside it the start line's words.
pub(super) type Make = Box<dyn FnOnce() -> Result<(Box<dyn Sink>, String), String> + Send>;

/// As configured; the trial writes below the log's folder.
pub(super) fn choose(choice: WriterChoice, data_dir: &Path) -> Make {
    let trial = data_dir.join("log").join("trial");
    Box::new(move || match (choice, UringSink::try_out(&trial)) {
        (WriterChoice::Thread, _) => Ok((Box::new(ThreadSink), "thread (asked for)".into())),
        (_, Ok(sink)) => Ok((Box::new(sink), "tokio-uring (a trial write and fdatasync worked)".into())),
        (WriterChoice::Auto, Err(error)) => Ok((Box::new(ThreadSink), format!("thread (tokio-uring: {error})"))),
        (WriterChoice::Uring, Err(error)) => {
            Err(format!("--bus-writer tokio-uring: {error}; or use --bus-writer auto"))
        }
    })
}

/// pwrite(2), fdatasync(2).
pub(super) struct ThreadSink;

impl Sink for ThreadSink {
    fn write(&mut self, file: &Arc<File>, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let outcome = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
        (outcome, bytes)
    }
}

/// `IORING_OP_WRITE`, `IORING_OP_FSYNC` with `IORING_FSYNC_DATASYNC`.
pub(super) struct UringSink {
    runtime: tokio_uring::Runtime,
    /// The segment that is written, with its own descriptor.
    open: Option<(Arc<File>, tokio_uring::fs::File)>,
}

impl UringSink {
    /// Does the real thing once, with a file at `trial`.
    fn try_out(trial: &PathBuf) -> io::Result<Self> {
        let mut builder = tokio_uring::builder();
        let runtime = tokio_uring::Runtime::new(builder.entries(RING_ENTRIES))?;
        let mut sink = Self { runtime, open: None };
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(trial)?;
        let (outcome, _) = sink.write(&Arc::new(file), 0, vec![0; 16]);
        sink.open = None;
        fs::remove_file(trial)?;
        outcome.map(|()| sink)
    }

    fn file(&mut self, file: &Arc<File>) -> io::Result<&tokio_uring::fs::File> {
        if self.open.as_ref().is_none_or(|(open, _)| !Arc::ptr_eq(open, file)) {
            let own = tokio_uring::fs::File::from_std(file.try_clone()?);
            self.open = Some((Arc::clone(file), own));
        }
        Ok(self.open.as_ref().map(|(_, own)| own).expect("set above"))
    }
}

impl Sink for UringSink {
    fn write(&mut self, file: &Arc<File>, at: u64, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        if let Err(error) = self.file(file) {
            return (Err(error), bytes);
        }
        let (_, own) = self.open.as_ref().expect("set above");
        self.runtime.block_on(async {
            let (outcome, bytes) = own.write_all_at(bytes, at).await;
            match outcome {
                Ok(()) => (own.sync_data().await, bytes),
                Err(error) => (Err(error), bytes),
            }
        })
    }
}

/// One operation is under way at a time.
const RING_ENTRIES: u32 = 8;
