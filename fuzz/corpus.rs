//! Tries a corpus: what is valid, cut short or meant to harm, and many small changes to each. Each crate that has one
//! takes this in, for no library names another.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::panic::catch_unwind;
use std::path::Path;

/// Of each file.
const CHANGED: u64 = 400;
/// A corpus that has got lost proves nothing.
const FEWEST: usize = 15;
/// Longer ones get nowhere that these do not.
const LONGEST: usize = 8 << 10;
/// Bytes that mean something to one parser or another.
const MEANINGFUL: &[u8] = b"\0\x01\x0d\x0a\x7f\x80\xff\x16\x20\x21\"'[]{}=:/.,%*_-09aZ\\ ";

/// Tries each file of `corpus/<name>`, and what comes of changing it. What a file is named `valid` must be taken.
pub(super) fn try_all(name: &str, taken: fn(&[u8]) -> bool) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let files = std::fs::read_dir(&directory).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort_unstable();
    assert!(files.len() >= FEWEST, "{}: {}", name, files.len());
    let corpus: Vec<_> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for (path, bytes) in files.iter().zip(&corpus) {
        let hold = |bytes: &[u8], what: &str| {
            catch_unwind(|| taken(bytes)).unwrap_or_else(|_| {
                let (path, bytes) = (path.display(), bytes.escape_ascii());
                panic!("{path}, {what}: \"{bytes}\"")
            })
        };
        let is_taken = hold(bytes, "as it is");
        let is_valid = path.file_name().unwrap().to_string_lossy();
        assert!(
            is_taken || !is_valid.starts_with("valid-"),
            "{} is refused",
            path.display()
        );
        for change in 0..CHANGED {
            let mut changed = bytes.clone();
            for _ in 0..=dice.below(4) {
                let other = &corpus[dice.below(corpus.len())];
                dice.change(&mut changed, other);
            }
            changed.truncate(LONGEST);
            hold(&changed, &format!("change {change}"));
        }
    }
}

/// The same throws each time, so that what fails fails again.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 for none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.throw() >> 1).unwrap() % end.max(1)
    }

    /// A place, up to the end, and a short stretch from there on.
    fn stretch(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let begin = self.below(bytes.len() + 1);
        let end = begin + self.below(16.min(bytes.len() - begin) + 1);
        begin..end
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let stretch = self.stretch(bytes);
        let begin = stretch.start;
        match self.below(8) {
            0 if begin < bytes.len() => bytes[begin] ^= 1 << self.below(8),
            1 if begin < bytes.len() => bytes[begin] = MEANINGFUL[self.below(MEANINGFUL.len())],
            // As the lengths in binary formats are.
            2 if begin + 2 <= bytes.len() => {
                let lengths = [[0, 0], [0, 1], [0xff, 0xff], [0x7f, 0xff], [0, 0xff]];
                bytes[begin..begin + 2].copy_from_slice(&lengths[self.below(lengths.len())]);
            }
            3 => bytes.truncate(begin),
            4 => drop(bytes.drain(stretch)),
            5 => {
                let again = bytes[stretch].to_vec();
                bytes.splice(begin..begin, again);
            }
            6 => {
                let theirs = other[self.stretch(other)].to_vec();
                bytes.splice(begin..begin, theirs);
            }
            // The beginning of one, and the end of another.
            _ => {
                bytes.truncate(begin);
                bytes.extend(&other[self.stretch(other).start..]);
            }
        }
    }
}
