//! Reads on a thread of its own, so that decompressing and digesting a layer goes on while its files are written.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes of a piece, and how many are under way: with these full the reading waits.
const PIECE: usize = 128 << 10;
const DEPTH: usize = 4;

/// Does `work` with what `source` holds, and gives back what came of it, and `source`, of which as much was read as `work`
/// read or a little more.
///
/// # Errors
///
/// If there is no thread to be had, or `source` panicked.
pub(crate) fn read_ahead<S: Read + Send, T>(
    mut source: S,
    work: impl FnOnce(&mut Ahead) -> T,
) -> io::Result<(T, S)> {
    let (to, from) = sync_channel(DEPTH);
    let (back, used) = sync_channel(DEPTH + 2);
    thread::scope(|scope| {
        let reading = thread::Builder::new()
            .name("read-ahead".into())
            .spawn_scoped(scope, move || {
                send(&mut source, &to, &used);
                source
            })?;
        let mut ahead = Ahead {
            from,
            back,
            piece: Vec::new(),
            taken: 0,
            ended: false,
        };
        let done = work(&mut ahead);
        drop(ahead); // by which the thread ends, had there been more to read
        let source = reading.join();
        let source = source.map_err(|_| io::Error::other("the reading thread panicked"))?;
        Ok((done, source))
    })
}

type Piece = io::Result<Vec<u8>>;

/// Until the end, an error, or nobody reads any more. The end is a piece without bytes.
fn send(source: &mut impl Read, to: &SyncSender<Piece>, used: &Receiver<Vec<u8>>) {
    loop {
        let mut piece = used.try_recv().unwrap_or_default();
        piece.clear();
        let read = source.take(PIECE as u64).read_to_end(&mut piece);
        let over = read.as_ref().map_or(true, |&count| count == 0);
        if to.send(read.map(|_| piece)).is_err() || over {
            return;
        }
    }
}

/// What was read ahead.
pub(crate) struct Ahead {
    from: Receiver<Piece>,
    /// Takes pieces back, to be filled again.
    back: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() && !self.ended && !buffer.is_empty() {
            let next = self.from.recv();
            let next = next.map_err(|_| io::Error::other("the reading thread ended"))??;
            let empty = std::mem::replace(&mut self.piece, next);
            let _ = self.back.try_send(empty); // one too many is freed
            self.taken = 0;
            self.ended = self.piece.is_empty();
        }
        let rest = &self.piece[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    /// As many bytes as asked for, then an error if one is wanted.
    struct Source {
        left: usize,
        fails: bool,
    }

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 && self.fails {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let count = self.left.min(buffer.len()).min(1000);
            buffer[..count].fill(7);
            self.left -= count;
            Ok(count)
        }
    }

    #[test]
    fn all_is_read_and_the_source_comes_back() {
        for left in [0, 1, PIECE, 20 * PIECE + 1] {
            let source = Source { left, fails: false };
            let read = |ahead: &mut Ahead| {
                let mut all = Vec::new();
                ahead.read_to_end(&mut all).unwrap();
                assert_eq!(ahead.read(&mut [0; 9]).unwrap(), 0, "the end stays");
                all.len()
            };
            let (count, source) = read_ahead(source, read).unwrap();
            assert_eq!((count, source.left), (left, 0));
        }
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it() {
        let source = Source {
            left: 2 * PIECE,
            fails: true,
        };
        let read = |ahead: &mut Ahead| {
            let mut all = Vec::new();
            let error = ahead.read_to_end(&mut all).unwrap_err();
            (all.len(), error.kind())
        };
        let ((count, kind), _) = read_ahead(source, read).unwrap();
        assert_eq!((count, kind), (2 * PIECE, io::ErrorKind::InvalidData));
    }

    #[test]
    fn who_stops_reading_does_not_wait_for_the_rest() {
        let source = Source {
            left: usize::MAX,
            fails: false,
        };
        let read = |ahead: &mut Ahead| ahead.read_exact(&mut [0; 10]);
        let (read, source) = read_ahead(source, read).unwrap();
        assert!(read.is_ok() && source.left > 0);
    }
}
