//! Pipes for splicing, lent out of a bounded pool.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

const LEAST_SIZE: usize = 64 << 10;

/// Empty pipes, and how many may exist at once.
#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "a loan costs neither an allocation nor much room in an idle flow"
)]
pub(crate) struct PipePool {
    idle: Mutex<Vec<Box<Ends>>>,
    made: AtomicUsize,
    most: usize,
    size: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    held: usize,
}

/// A pipe on loan. Dropped empty, it goes back; holding bytes, which belong to one flow, it is
/// closed.
#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Option<Box<Ends>>,
    pool: Arc<PipePool>,
}

impl PipePool {
    pub(crate) fn new(most: usize, size: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            made: AtomicUsize::new(0),
            most,
            size,
        })
    }

    /// An empty pipe, if the bound and the kernel allow one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Pipe> {
        let idle = lock(&self.idle).pop();
        let ends = match idle {
            Some(ends) => ends,
            None => Box::new(self.make()?),
        };
        Some(Pipe {
            ends: Some(ends),
            pool: self.clone(),
        })
    }

    fn make(&self) -> Option<Ends> {
        let more = |made| (made < self.most).then_some(made + 1);
        (self.made)
            .try_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let ends = Ends::new(self.size);
        if ends.is_err() {
            // Such as EMFILE: copying needs no descriptor.
            self.made.fetch_sub(1, Ordering::Relaxed);
        }
        ends.ok()
    }

    #[cfg(test)]
    fn idle(&self) -> usize {
        lock(&self.idle).len()
    }
}

fn lock<T>(idle: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ends {
    fn new(wanted: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // An unprivileged user gets less once all their pipes together are large.
        let mut ask = wanted;
        while ask >= LEAST_SIZE && fcntl_setpipe_size(&write, ask).is_err() {
            ask /= 2;
        }
        let size = fcntl_getpipe_size(&write)?;
        Ok(Self {
            read,
            write,
            size,
            held: 0,
        })
    }
}

impl Pipe {
    pub(crate) fn held(&self) -> usize {
        self.ends().held
    }

    pub(crate) fn size(&self) -> usize {
        self.ends().size
    }

    pub(crate) fn write_end(&self) -> &OwnedFd {
        &self.ends().write
    }

    pub(crate) fn read_end(&self) -> &OwnedFd {
        &self.ends().read
    }

    pub(crate) fn filled(&mut self, bytes: usize) {
        self.ends_mut().held += bytes;
    }

    pub(crate) fn drained(&mut self, bytes: usize) {
        self.ends_mut().held -= bytes;
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("the ends leave only in drop")
    }

    fn ends_mut(&mut self) -> &mut Ends {
        self.ends.as_mut().expect("the ends leave only in drop")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        match self.ends.take() {
            Some(ends) if ends.held == 0 => lock(&self.pool.idle).push(ends),
            _ => {
                self.pool.made.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn lends_no_more_than_its_bound() {
        let pool = PipePool::new(2, LEAST_SIZE);
        let first = pool.take().unwrap();
        let _second = pool.take().unwrap();
        assert!(pool.take().is_none());
        drop(first);
        assert!(pool.take().is_some());
    }

    #[test]
    fn a_pipe_that_holds_bytes_never_comes_back() {
        let pool = PipePool::new(1, LEAST_SIZE);
        let mut pipe = pool.take().unwrap();
        pipe.filled(1);
        drop(pipe);
        assert_eq!(pool.idle(), 0);
        let pipe = pool.take().unwrap();
        drop(pipe);
        assert_eq!(pool.idle(), 1);
    }

    #[test]
    fn reports_the_size_that_was_granted() {
        let pool = PipePool::new(1, 256 << 10);
        let pipe = pool.take().unwrap();
        assert!(pipe.size() >= 4096 && pipe.size() <= 256 << 10);
    }
}
