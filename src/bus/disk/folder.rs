//! The log's folder: one owner at a time, segments named by their numbers, each made whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::log::{Damage, Header};

/// See the module.
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open, whatever becomes of the process.
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder and takes possession of it.
    pub fn open(data_dir: &Path) -> Result<Self, String> {
        let path = data_dir.join("log");
        let refuse = |what: &str, error: io::Error| {
            let dir = data_dir.display();
            format!(
                "data_dir {dir}: {what} {dir}/log: {error}; give a folder that this user may write to with --data-dir"
            )
        };
        fs::create_dir_all(&path).map_err(|error| refuse("cannot make", error))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(path.join("lock"));
        let lock = lock.map_err(|error| refuse("cannot write to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let dir = data_dir.display();
                return Err(format!(
                    "data_dir {dir}: another process uses it; stop that one or give another --data-dir"
                ));
            }
            Err(TryLockError::Error(error)) => return Err(refuse("cannot lock", error)),
        }
        let folder = Self { path, _lock: lock };
        // Half a segment that never got its name.
        match fs::remove_file(folder.path.join(UNFINISHED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refuse("cannot write to", error)),
            _ => Ok(folder),
        }
    }

    /// The segments, oldest first.
    pub fn numbers(&self) -> Result<Vec<u64>, String> {
        let unreadable = |error| format!("{}: {error}; make it readable", self.path.display());
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let number = digits.and_then(|digits| digits.parse::<u64>().ok());
            // Nothing but the name that this folder gives: what somebody else put there is none of the log's.
            numbers.extend(number.filter(|number| self.file(*number).file_name() == Some(&name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens a segment and reads all of it.
    pub fn read(&self, number: u64, bytes: &mut Vec<u8>) -> Result<Arc<File>, String> {
        let refuse =
            |error: io::Error| format!("{}: {error}; make it readable and writable", self.file(number).display());
        let mut file = OpenOptions::new().read(true).write(true).open(self.file(number)).map_err(refuse)?;
        bytes.clear();
        file.read_to_end(bytes).map_err(refuse)?;
        Ok(Arc::new(file))
    }

    /// Makes a segment that has nothing but its header; durable when this returns.
    pub fn create(&self, header: &Header) -> Result<Arc<File>, String> {
        let unfinished = self.path.join(UNFINISHED);
        let made = self.make(header, &unfinished);
        made.map_err(|error| {
            // Whether it is there or not, the next attempt begins anew.
            let _ = fs::remove_file(&unfinished);
            format!("{}: {error}", self.file(header.number).display())
        })
    }

    fn make(&self, header: &Header, unfinished: &Path) -> io::Result<Arc<File>> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(MODE).to_owned();
        let mut file = options.open(unfinished)?;
        file.write_all(&header.bytes())?;
        file.sync_all()?;
        fs::rename(unfinished, self.file(header.number))?;
        File::open(&self.path)?.sync_all()?;
        Ok(Arc::new(file))
    }

    /// Cuts a segment.
    pub fn cut(&self, file: &File, number: u64, bytes: u64) -> Result<(), String> {
        let cut = file.set_len(bytes).and_then(|()| file.sync_all());
        cut.map_err(|error| format!("{}: cannot be cut: {error}", self.file(number).display()))
    }

    /// Removes a segment, if it is there.
    pub fn remove(&self, number: u64) -> Result<(), String> {
        match fs::remove_file(self.file(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{}: {error}", self.file(number).display()))
            }
            _ => Ok(()),
        }
    }

    /// The error for damage.
    pub fn damaged(&self, number: u64, damage: &Damage) -> String {
        self.refuse(number, &damage.to_string())
    }

    /// The error for a segment that cannot be used.
    pub fn refuse(&self, number: u64, why: &str) -> String {
        let (file, folder) = (self.file(number), self.path.display());
        format!("{}: {why}; restore {folder} from a copy, or move it away to begin a new log", file.display())
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:020}{SUFFIX}"))
    }
}

/// Reads `length` bytes from `at`; they are there.
pub(super) fn read_at(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

const SUFFIX: &str = ".log";
const UNFINISHED: &str = "unfinished";
/// Players' words are nobody's but this user's.
const MODE: u32 = 0o600;
