//! Writes a log and begins a new file when one is full.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};

use jiff::Timestamp;

use super::{Entry, Stream, files};
use crate::spec::LogOptions;

/// Docker's: a line longer than this is written in pieces, all but the last without a newline.
const LONGEST_PIECE: usize = 16 << 10;

/// Turns output into log lines.
pub(crate) struct LogWriter {
    options: LogOptions,
    file: File,
    size: u64,
    /// The beginning of a line whose end has not come yet, per stream.
    unfinished: [Vec<u8>; 2],
    /// Writing failed and this was said: a full disk must not fill the shim's own log too.
    failing: bool,
}

impl LogWriter {
    /// Goes on with the file if there is one.
    pub(crate) fn open(options: LogOptions) -> io::Result<Self> {
        if let Some(directory) = options.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = open(&options)?;
        let size = file.metadata()?.len();
        Ok(Self {
            options,
            file,
            size,
            unfinished: Default::default(),
            failing: false,
        })
    }

    /// Logs what `bytes` finish; a failure is reported once and output goes on.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let mut buffer = std::mem::take(&mut self.unfinished[stream as usize]);
        buffer.extend_from_slice(bytes);
        let mut batch = Vec::new();
        let mut rest = &buffer[..];
        while let Some(length) = piece(rest) {
            let (line, after) = rest.split_at(length);
            self.add(&mut batch, stream, line);
            rest = after;
        }
        self.unfinished[stream as usize] = rest.to_vec();
        self.append(&batch);
    }

    /// Logs a line of `stream` that will not be finished any more.
    pub(crate) fn finish(&mut self, stream: Stream) {
        let rest = std::mem::take(&mut self.unfinished[stream as usize]);
        if !rest.is_empty() {
            let mut batch = Vec::new();
            self.add(&mut batch, stream, &rest);
            self.append(&batch);
        }
    }

    /// Adds an entry to those to be written, and writes them first if they fill the file.
    fn add(&mut self, batch: &mut Vec<u8>, stream: Stream, line: &[u8]) {
        let before = batch.len();
        encode(batch, stream, line);
        let full = |limit| before as u64 + self.size > 0 && self.size + batch.len() as u64 > limit;
        if self.options.max_size.is_some_and(full) {
            let entry = batch.split_off(before);
            self.append(batch);
            *batch = entry;
            let rotated = self.rotate();
            self.tell(rotated);
        }
    }

    fn append(&mut self, entries: &[u8]) {
        if !entries.is_empty() {
            let written = self.file.write_all(entries);
            self.size += entries.len() as u64;
            self.tell(written);
        }
    }

    fn tell(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                let path = self.options.path.display();
                eprintln!("write log {path}: {error}; output is lost until it works again");
                self.failing = true;
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let kept = self.options.max_file.max(1);
        for older in (1..kept).rev() {
            let from = files::numbered(&self.options.path, older - 1);
            match fs::rename(&from, files::numbered(&self.options.path, older)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if kept == 1 {
            fs::remove_file(&self.options.path)?;
        }
        self.file = open(&self.options)?;
        self.size = 0;
        Ok(())
    }
}

fn open(options: &LogOptions) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&options.path)
}

/// Length of the first line of `bytes`, or of the piece to write although its end is not there.
fn piece(bytes: &[u8]) -> Option<usize> {
    let window = &bytes[..bytes.len().min(LONGEST_PIECE)];
    if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
        return Some(end + 1);
    }
    if bytes.len() <= LONGEST_PIECE {
        return None;
    }
    // not within a character of UTF-8, whose later bytes are all 10xxxxxx
    let boundary = (LONGEST_PIECE - 3..=LONGEST_PIECE)
        .rev()
        .find(|at| bytes[*at] & 0xc0 != 0x80);
    Some(boundary.unwrap_or(LONGEST_PIECE))
}

fn encode(entries: &mut Vec<u8>, stream: Stream, text: &[u8]) {
    let log: Cow<str> = String::from_utf8_lossy(text);
    let entry = Entry {
        log,
        stream,
        time: Timestamp::now(),
    };
    serde_json::to_writer(&mut *entries, &entry).expect("text always encodes");
    entries.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(max_size: Option<u64>, max_file: u32) -> (tempfile::TempDir, LogWriter) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("c.log");
        let writer = LogWriter::open(LogOptions {
            path,
            max_size,
            max_file,
        })
        .expect("opened");
        (directory, writer)
    }

    fn texts(directory: &tempfile::TempDir, name: &str) -> Vec<String> {
        let file = fs::read_to_string(directory.path().join(name)).expect("a log");
        file.lines()
            .map(|line| {
                serde_json::from_str::<Entry>(line)
                    .expect("an entry")
                    .log
                    .into_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_put_together_per_stream() {
        let (directory, mut log) = log(None, 1);
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"err\n");
        log.write(Stream::Stdout, b"o\nend");
        log.finish(Stream::Stdout);
        assert_eq!(
            texts(&directory, "c.log"),
            ["one\n", "err\n", "two\n", "end"]
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces_between_characters() {
        let (directory, mut log) = log(None, 1);
        let line = "ä".repeat(LONGEST_PIECE) + "\n";
        for chunk in line.as_bytes().chunks(1000) {
            log.write(Stream::Stdout, chunk);
        }
        let texts = texts(&directory, "c.log");
        assert!(texts.iter().all(|text| text.len() <= LONGEST_PIECE));
        assert_eq!(texts.concat(), line);
    }

    #[test]
    fn full_files_are_kept_up_to_their_number() {
        let (directory, mut log) = log(Some(200), 3);
        for number in 0..20 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let all: Vec<_> = ["c.log.2", "c.log.1", "c.log"]
            .iter()
            .flat_map(|name| texts(&directory, name))
            .collect();
        assert_eq!(all.last().map(String::as_str), Some("line 19\n"));
        assert!(all.len() >= 6 && all.len() < 20, "{all:?}");
        assert!(!directory.path().join("c.log.3").exists());
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let (directory, mut log) = log(None, 1);
        log.write(Stream::Stdout, b"\xff\n");
        assert_eq!(texts(&directory, "c.log"), ["\u{fffd}\n"]);
    }
}
