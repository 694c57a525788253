//! Has the disk begin with what was written, while more is on its way: what is recorded must be on the disk first, and the
//! kernel by itself would wait for half a minute.

use std::fs::File;
use std::os::fd::AsFd;

use crate::sys;

/// Bytes after which the disk begins.
const PIECE: u64 = 8 << 20;
/// Files with less are left for the end: there are too many of them to tell of each.
const LEAST: u64 = 1 << 20;

/// How much of a file the disk has been told of.
#[derive(Debug, Default)]
pub struct Writeback {
    begun: u64,
}

impl Writeback {
    /// Notes that the first `written` bytes of `file` are written.
    pub fn written(&mut self, file: &File, written: u64) {
        if written - self.begun >= PIECE {
            self.begin(file, written);
        }
    }

    /// Notes that these are all.
    pub fn end(mut self, file: &File, written: u64) {
        if written >= LEAST {
            self.begin(file, written);
        }
    }

    fn begin(&mut self, file: &File, written: u64) {
        sys::begin_writeback(file.as_fd(), self.begun, written - self.begun);
        self.begun = written;
    }
}
