//! Writes the entries of a tar stream: PAX headers where ustar's fields are too small, and for extended attributes.

use std::io::{self, Write};

const BLOCK: usize = 512;
/// The largest number that an eleven-digit octal field holds.
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_ID: u64 = 0o7_777_777;

/// What an entry says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) path: Vec<u8>,
    /// Where a link leads.
    pub(crate) link: Vec<u8>,
    /// ustar's type flag.
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Writes the header of an entry; its content and [`pad`] are to follow.
pub(crate) fn write_header(to: &mut impl Write, header: &Header) -> io::Result<()> {
    let records = records(header);
    if !records.is_empty() {
        let extension = Header {
            path: b"PaxHeaders.0/x".to_vec(),
            kind: b'x',
            mode: 0o644,
            size: records.len() as u64,
            ..Header::default()
        };
        to.write_all(&block(&extension))?;
        to.write_all(&records)?;
        pad(to, records.len() as u64)?;
    }
    to.write_all(&block(header))
}

/// Fills up the last block of `size` bytes of content.
pub(crate) fn pad(to: &mut impl Write, size: u64) -> io::Result<()> {
    let left = (size % BLOCK as u64) as usize;
    to.write_all(&[0; BLOCK][..(BLOCK - left) % BLOCK])
}

/// Ends an archive.
pub(crate) fn finish(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 2 * BLOCK])
}

/// The PAX records (pax(1)) for what the ustar header cannot say.
fn records(header: &Header) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        let rest = key.len() + value.len() + 3; // a space, an equals sign and the end of the line
        // The length counts its own digits.
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend(format!("{length} ").bytes());
        records.extend([key, b"=", value, b"\n"].concat());
    };
    if header.path.len() > 100 || !header.path.is_ascii() {
        add(b"path", &header.path);
    }
    if header.link.len() > 100 || !header.link.is_ascii() {
        add(b"linkpath", &header.link);
    }
    if header.size > MAX_SIZE {
        add(b"size", header.size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", header.uid), (b"gid", header.gid)] {
        if u64::from(id) > MAX_ID {
            add(key, id.to_string().as_bytes());
        }
    }
    if !(0..=MAX_SIZE.cast_signed()).contains(&header.mtime) {
        add(b"mtime", header.mtime.to_string().as_bytes());
    }
    for (name, value) in &header.xattrs {
        add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    records
}

fn block(header: &Header) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, width: usize, value: &[u8]| {
        let length = value.len().min(width);
        block[at..at + length].copy_from_slice(&value[..length]);
    };
    text(0, 100, &header.path);
    text(157, 100, &header.link);
    text(257, 8, b"ustar\x0000");
    text(156, 1, &[header.kind]);
    let mut number = |at: usize, width: usize, value: u64| {
        // What does not fit stands in a PAX record.
        let most = 8_u64.pow(u32::try_from(width - 1).unwrap_or(u32::MAX)) - 1;
        let digits = format!("{:0width$o}", value.min(most), width = width - 1);
        text(at, width, digits.as_bytes());
    };
    number(100, 8, header.mode.into());
    number(108, 8, header.uid.into());
    number(116, 8, header.gid.into());
    number(124, 12, header.size);
    number(136, 12, header.mtime.max(0).unsigned_abs());
    number(329, 8, header.device.0.into());
    number(337, 8, header.device.1.into());
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use std::io::Read;

    use proptest::prelude::*;

    use super::*;
    use crate::image::tarball::{Kind, TarReader};

    fn written(header: &Header, content: &[u8]) -> Vec<u8> {
        let mut archive = Vec::new();
        write_header(&mut archive, header).unwrap();
        archive.write_all(content).unwrap();
        pad(&mut archive, content.len() as u64).unwrap();
        finish(&mut archive).unwrap();
        archive
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            path in "[a-zé/]{1,200}[a-z]", link in "[a-z/]{0,300}", mode in 0_u32..0o10000,
            uid in any::<u32>(), gid in any::<u32>(), mtime in any::<i32>(),
            content in proptest::collection::vec(any::<u8>(), 0..2000),
            value in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let header = Header {
                path: path.clone().into(), link: link.clone().into(), kind: b'0', mode, uid, gid,
                size: content.len() as u64, mtime: mtime.into(), device: (0, 0),
                xattrs: vec![(b"user.x".to_vec(), value)],
            };
            let archive = written(&header, &content);
            prop_assert_eq!(archive.len() % BLOCK, 0);
            let mut reader = TarReader::new(&archive[..], 10);
            let entry = reader.next_entry().unwrap().unwrap();
            prop_assert_eq!((entry.path, entry.kind), (header.path, Kind::File));
            prop_assert_eq!((entry.mode, entry.uid, entry.gid), (mode, uid.into(), gid.into()));
            prop_assert_eq!((entry.mtime.0, entry.size), (mtime.into(), header.size));
            prop_assert_eq!(entry.xattrs, header.xattrs);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, content);
            prop_assert!(reader.next_entry().unwrap().is_none());
        }
    }

    #[test]
    fn links_and_devices_are_read_again() {
        for (kind, expected) in [
            (b'1', Kind::HardLink),
            (b'2', Kind::Symlink),
            (b'3', Kind::CharDevice),
        ] {
            let header = Header {
                path: b"a".to_vec(),
                link: b"x/".repeat(80),
                kind,
                device: (5, 1),
                ..Header::default()
            };
            let archive = written(&header, &[]);
            let entry = TarReader::new(&archive[..], 10)
                .next_entry()
                .unwrap()
                .unwrap();
            assert_eq!((entry.kind, entry.link), (expected, header.link));
            if expected == Kind::CharDevice {
                assert_eq!(entry.device, (5, 1));
            }
        }
    }
}
