//! What happened, on the disk, so that the next daemon knows it too.
//!
//! A line for each event is appended, and the kernel has it from then on; a power cut takes back the last moment. A line that
//! was torn is left out. When the file is full it becomes the older one, in place of that which was.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Event;

/// Name of the file, and of the one that was full before.
const NAME: &str = "events.jsonl";
const OLDER: &str = "events.older.jsonl";
/// Bytes that each of the two may have.
const FULL: u64 = 2 << 20;
/// Bytes of an event that is kept; of one with more, such as very many labels, only those hear who listen.
const LONGEST: usize = 64 << 10;

/// The files, and how much is in the newer one.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    file: File,
    length: u64,
    /// The last event could not be written, and that was told.
    failing: bool,
}

impl Journal {
    /// Opens the journal in `directory`, and reads the last `most` events of it.
    pub(super) fn open(directory: &Path, most: usize) -> io::Result<(Self, VecDeque<Arc<Event>>)> {
        let mut events = VecDeque::with_capacity(most);
        for name in [OLDER, NAME] {
            read(&directory.join(name), &mut events, most)?;
        }
        let mut journal = Self {
            file: open(&directory.join(NAME))?,
            directory: directory.to_owned(),
            length: 0,
            failing: false,
        };
        journal.length = journal.file.seek(SeekFrom::End(0))?;
        journal.end_torn_line()?;
        Ok((journal, events))
    }

    /// What was cut off by a power cut must not spoil the line that follows it.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        if last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.length += 1;
        }
        Ok(())
    }

    /// Keeps an event. What cannot be written is told of once, and all else goes on.
    pub(super) fn keep(&mut self, event: &Event) {
        match self.append(event) {
            Ok(()) => self.failing = false,
            Err(error) if self.failing => tracing::debug!(%error, "keep an event"),
            Err(error) => {
                let path = self.directory.join(NAME);
                tracing::warn!(path = %path.display(), %error, "events are not kept on the disk");
                self.failing = true;
            }
        }
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        if line.len() > LONGEST {
            return Ok(());
        }
        line.push(b'\n');
        if self.length + line.len() as u64 > FULL {
            let path = self.directory.join(NAME);
            fs::rename(&path, self.directory.join(OLDER))?;
            self.file = open(&path)?;
            self.length = 0;
        }
        let written = self.file.write_all(&line);
        match written {
            Ok(()) => self.length += line.len() as u64,
            // A part of it may be there, which must not spoil the next.
            Err(_) => {
                let _ = self.file.set_len(self.length);
            }
        }
        written
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}

fn read(path: &Path, events: &mut VecDeque<Arc<Event>>, most: usize) -> io::Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice(line) {
            if events.len() == most {
                events.pop_front();
            }
            events.push_back(Arc::new(event));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::daemon::events::Kind;

    fn event(id: usize) -> Event {
        Event {
            kind: Kind::Container,
            action: "start".to_owned(),
            id: id.to_string(),
            attributes: [("name".to_owned(), "x".repeat(1000))].into(),
            time: Timestamp::UNIX_EPOCH,
        }
    }

    fn ids(events: &VecDeque<Arc<Event>>) -> Vec<usize> {
        let ids = events.iter().map(|event| event.id.parse());
        ids.collect::<Result<_, _>>().expect("numbers")
    }

    #[test]
    fn what_was_kept_is_read_but_for_a_line_that_was_torn() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let (mut journal, before) = Journal::open(directory.path(), 10)?;
        assert!(before.is_empty());
        journal.keep(&event(1));
        journal.keep(&event(2));
        drop(journal);
        let path = directory.path().join(NAME);
        let whole = fs::metadata(&path)?.len();
        File::options()
            .write(true)
            .open(&path)?
            .set_len(whole - 7)?;
        let (mut journal, before) = Journal::open(directory.path(), 10)?;
        assert_eq!(ids(&before), [1]);
        journal.keep(&event(3));
        let (_, before) = Journal::open(directory.path(), 10)?;
        assert_eq!(ids(&before), [1, 3]);
        assert_eq!(*before[1], event(3));
        Ok(())
    }

    #[test]
    fn the_disk_is_bounded_and_the_last_are_there_over_a_change_of_files() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let (mut journal, _) = Journal::open(directory.path(), 10)?;
        for number in 0..6000 {
            journal.keep(&event(number));
            let names = [NAME, OLDER].map(|name| directory.path().join(name));
            let sizes = names.map(|path| fs::metadata(path).map_or(0, |found| found.len()));
            assert!(sizes.iter().all(|size| *size <= FULL), "{sizes:?}");
        }
        let (_, before) = Journal::open(directory.path(), 2000)?;
        assert_eq!(ids(&before), (4000..6000).collect::<Vec<_>>());
        Ok(())
    }
}
