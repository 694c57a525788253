#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod escapes;
mod files;
mod whiteouts;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// Writes archives that a well-meaning library would refuse to write.
#[derive(Default)]
struct Tar(Vec<u8>);

/// What an entry has unless the test says otherwise.
struct Item<'a> {
    kind: u8,
    name: &'a [u8],
    link: &'a [u8],
    data: &'a [u8],
    mode: u32,
    owner: (u64, u64),
    device: (u32, u32),
}

fn item(kind: u8, name: &str) -> Item<'_> {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Item {
        kind,
        name: name.as_bytes(),
        link: b"",
        data: b"",
        mode,
        owner: (0, 0),
        device: (0, 0),
    }
}

impl Tar {
    fn add(&mut self, item: &Item<'_>) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..item.name.len()].copy_from_slice(item.name);
        old.linkname[..item.link.len()].copy_from_slice(item.link);
        header.set_entry_type(tar::EntryType::new(item.kind));
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(item.data.len() as u64);
        header.set_device_major(item.device.0).unwrap();
        header.set_device_minor(item.device.1).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(item.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn dir(mut self, name: &str) -> Self {
        self.add(&item(b'5', name));
        self
    }

    fn file(mut self, name: &str, content: &str) -> Self {
        self.add(&Item {
            data: content.as_bytes(),
            ..item(b'0', name)
        });
        self
    }

    fn symlink(mut self, name: &str, target: &str) -> Self {
        self.add(&Item {
            link: target.as_bytes(),
            ..item(b'2', name)
        });
        self
    }

    fn hard_link(mut self, name: &str, target: &str) -> Self {
        self.add(&Item {
            link: target.as_bytes(),
            ..item(b'1', name)
        });
        self
    }

    /// PAX records for the entry that follows.
    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body + 1..)
                .find(|length| length.to_string().len() + body == *length)
                .unwrap();
            data.extend(format!("{length} {key}=").into_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.add(&Item {
            data: &data,
            ..item(b'x', "pax")
        });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }

    fn unpack(&self, root: &Path) -> Result<u64, UnpackError> {
        self.unpack_over(root, &[])
    }

    /// `lower` uppermost first.
    fn unpack_over(&self, root: &Path, lower: &[&Path]) -> Result<u64, UnpackError> {
        let lower: Vec<_> = lower.iter().map(|path| path.to_path_buf()).collect();
        unpack_over(&self.bytes()[..], root, &lower, &Limits::default())
    }
}

fn tar() -> Tar {
    Tar::default()
}

/// Everything below a directory: name, kind and mode, owner, content.
fn snapshot(dir: &Path) -> Vec<(String, u32, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.push((path.display().to_string(), meta.mode(), meta.uid(), content));
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    found.sort();
    found
}
