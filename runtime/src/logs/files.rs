//! The files of one log, and how to walk through them while the writer renames them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The log's file number `n`, 0 being the newest.
pub(super) fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.into();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    name.into()
}

/// A file of the log, open, with a place to read from.
pub(super) struct Part {
    file: File,
    inode: u64,
    /// Offset of the next byte to read.
    pub(super) at: u64,
}

impl Part {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Self { file, inode, at: 0 }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }

    /// Moves to the beginning of the `lines`th line from the end, and tells how many lines follow.
    pub(super) fn seek_lines_from_end(&mut self, lines: u64) -> io::Result<u64> {
        let mut end = self.file.metadata()?.len();
        let mut found = 0;
        let mut block = vec![0; 64 << 10];
        self.at = end;
        if lines == 0 {
            return Ok(0);
        }
        let length = end;
        while end > 0 {
            let start = end.saturating_sub(block.len() as u64);
            let bytes = &mut block[..usize::try_from(end - start).expect("a block")];
            self.file.read_exact_at(bytes, start)?;
            for (index, _) in bytes
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, byte)| **byte == b'\n')
            {
                let after = start + index as u64 + 1;
                if after == length {
                    continue; // ends the last line
                }
                found += 1;
                if found == lines {
                    self.at = after;
                    return Ok(found);
                }
            }
            end = start;
        }
        self.at = 0;
        Ok(found + u64::from(length > 0))
    }
}

/// The oldest file.
pub(super) fn oldest(path: &Path) -> io::Result<Option<Part>> {
    let mut n = 0;
    while numbered(path, n + 1).exists() {
        n += 1;
    }
    Part::open(&numbered(path, n))
}

/// The file that holds the `lines`th line from the end, at that line.
pub(super) fn tail(path: &Path, lines: u64) -> io::Result<Option<Part>> {
    let mut missing = lines;
    let mut best = None;
    for n in 0.. {
        let Some(mut part) = Part::open(&numbered(path, n))? else {
            break;
        };
        missing -= part.seek_lines_from_end(missing)?;
        best = Some(part);
        if missing == 0 {
            break;
        }
    }
    Ok(best)
}

/// The file begun after `part`, if there is one: files move to higher numbers as newer ones are begun.
pub(super) fn after(path: &Path, part: &Part) -> io::Result<Option<Part>> {
    let mut newer = None;
    for n in 0.. {
        match Part::open(&numbered(path, n))? {
            Some(found) if found.inode == part.inode => return Ok(newer),
            Some(found) => newer = Some(found),
            // the writer removed ours: go on with the oldest that is left
            None => return Ok(newer),
        }
    }
    Ok(None)
}
