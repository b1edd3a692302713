//! Passwords are hashed here, on threads of their own: Argon2id takes some 20 ms and 19 MiB, by design.
//!
//! Laws: what waits is bounded by who asks ([`limits::PASSWORD_QUEUE`]); a password is forgotten with its work; nothing of
//! it is ever logged. The hash of a password and a salt is always the same, so that a repeat changes nothing.

use std::sync::Arc;
use std::thread;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits;
use crate::router::Wake;
use crate::services::rooms::{Outcome, Task, Work};

/// Who hashes passwords for a worker.
pub trait Passwords {
    /// Takes work, or gives it back if there is too much.
    ///
    /// # Errors
    /// The work itself.
    fn submit(&mut self, work: Work) -> Result<(), Work>;

    /// Work that is done: its ticket, and what came of it.
    fn finished(&mut self) -> Option<(u64, Outcome)>;
}

/// Threads that hash. They end when this is dropped, after the work under way.
#[derive(Debug)]
pub struct PasswordPool {
    work: Sender<Work>,
    done: Receiver<(u64, Outcome)>,
}

impl PasswordPool {
    /// Starts the threads, ≥ 1; `wake` is called when something is done.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(threads: usize, wake: &Arc<dyn Wake>) -> std::io::Result<Self> {
        let (work, waiting) = bounded::<Work>(limits::PASSWORD_QUEUE);
        // Never full: as much is out as may wait, and one per thread.
        let (finished, done) = bounded(limits::PASSWORD_QUEUE + threads);
        for _ in 0..threads {
            let (waiting, finished, wake) = (waiting.clone(), finished.clone(), Arc::clone(wake));
            let body = move || {
                let hasher = hasher();
                for work in waiting {
                    let ticket = work.ticket;
                    if finished.send((ticket, carry_out(&hasher, work.task))).is_err() {
                        return;
                    }
                    wake.wake();
                }
            };
            thread::Builder::new().name("passwords".into()).spawn(body)?;
        }
        Ok(Self { work, done })
    }
}

impl Passwords for PasswordPool {
    fn submit(&mut self, work: Work) -> Result<(), Work> {
        self.work.try_send(work).map_err(crossbeam_channel::TrySendError::into_inner)
    }

    fn finished(&mut self) -> Option<(u64, Outcome)> {
        self.done.try_recv().ok()
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(limits::PASSWORD_MEMORY_KIB, limits::PASSWORD_PASSES, 1, None);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.expect("the limits are within Argon2's"))
}

/// Takes milliseconds.
fn carry_out(hasher: &Argon2<'_>, task: Task) -> Outcome {
    match task {
        Task::Hash { salt, password } => {
            let hash = SaltString::encode_b64(&salt)
                .and_then(|salt| hasher.hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()));
            hash.map_or(Outcome::Failed, |hash| Outcome::Hashed(hash.into()))
        }
        Task::Verify { hash, password } => match PasswordHash::new(&hash) {
            Ok(hash) => Outcome::Verified(hasher.verify_password(password.as_bytes(), &hash).is_ok()),
            Err(_) => Outcome::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::ThreadWaker;

    fn all(works: &[Work]) -> Vec<(u64, Outcome)> {
        let wake: Arc<dyn Wake> = Arc::new(ThreadWaker::new(thread::current()));
        let mut pool = PasswordPool::start(2, &wake).unwrap();
        for work in works {
            pool.submit(work.clone()).unwrap();
        }
        let mut done: Vec<_> = works.iter().map(|_| pool.done.recv().unwrap()).collect();
        done.sort_by_key(|(ticket, _)| *ticket);
        done
    }

    /// A password fits its own hash and no other does; the same salt gives the same hash; the hash names its cost.
    #[test]
    fn passwords_fit_their_hashes() {
        let hash =
            |ticket, salt| Work { ticket, task: Task::Hash { salt: [salt; 16], password: "open sesame".into() } };
        let made = all(&[hash(1, 1), hash(2, 1), hash(3, 2)]);
        let Outcome::Hashed(first) = &made[0].1 else { panic!("{made:?}") };
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_eq!(made[0].1, made[1].1);
        assert_ne!(made[0].1, made[2].1);
        let verify = |ticket, password: &str, hash: &str| Work {
            ticket,
            task: Task::Verify { hash: hash.into(), password: password.into() },
        };
        let held = all(&[verify(1, "open sesame", first), verify(2, "Open sesame", first), verify(3, "x", "no hash")]);
        let outcomes = [Outcome::Verified(true), Outcome::Verified(false), Outcome::Failed];
        assert_eq!(held.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>(), outcomes);
    }

    /// Nothing printed of work shows its password.
    #[test]
    fn work_prints_without_its_password() {
        let work = Work { ticket: 1, task: Task::Hash { salt: [0; 16], password: "open sesame".into() } };
        assert!(!format!("{work:?}").contains("sesame"));
    }
}
