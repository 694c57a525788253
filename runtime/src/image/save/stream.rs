//! The bytes of a saved archive, read from disk no faster than they are taken.

use std::io::{self, Read};
use std::sync::mpsc as channel;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use tokio::sync::mpsc;

use super::layout::{Part, blob_name};
use crate::image::lease::Lease;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Chunks under way.
const DEPTH: usize = 4;
/// What a tar file's members are padded to.
const BLOCK: usize = 512;

/// An archive that is ready to be read. What it holds stays in the store until it is dropped.
pub struct SavedArchive {
    parts: Vec<Part>,
    lease: Lease,
}

impl SavedArchive {
    pub(super) fn new(parts: Vec<Part>, lease: Lease) -> Self {
        Self { parts, lease }
    }

    /// Its bytes. Whoever does not take them all leaves nothing running.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (to, from) = mpsc::channel(DEPTH);
        tokio::task::spawn_blocking(move || {
            let failed = self.send(&to).err();
            if let Some(error) = failed {
                // Nobody may be there to be told.
                let _ = to.blocking_send(Err(error));
            }
        });
        stream::unfold(from, async |mut from| {
            from.recv().await.map(|chunk| (chunk, from))
        })
    }

    fn send(&self, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let put = |chunk: Bytes| to.blocking_send(Ok(chunk)).map_err(gone);
        let buffers = Buffers::new();
        for part in &self.parts {
            match part {
                Part::Directory(name) => put(header(name, 0)?)?,
                Part::File { name, content } => {
                    put(header(name, content.len() as u64)?)?;
                    put(Bytes::copy_from_slice(content))?;
                    put(padding(content.len() as u64))?;
                }
                Part::Blob { digest, size } => {
                    put(header(&blob_name(*digest), *size)?)?;
                    let file = self.lease.store().blobs.open(*digest)?;
                    send_file(file, *size, &buffers, put)?;
                    put(padding(*size))?;
                }
            }
        }
        put(Bytes::from_static(&[0; 2 * BLOCK]))
    }
}

/// Memory for chunks that comes back when they have been sent: the kernel has to clear what is taken afresh, which takes
/// about as long as reading it full.
struct Buffers {
    spare: channel::Receiver<Vec<u8>>,
    back: channel::Sender<Vec<u8>>,
}

/// A chunk on loan.
struct Lent {
    buffer: Vec<u8>,
    length: usize,
    back: channel::Sender<Vec<u8>>,
}

impl Buffers {
    fn new() -> Self {
        let (back, spare) = channel::channel();
        Self { spare, back }
    }

    /// A chunk of `length` bytes, at most [`CHUNK`], that `fill` fills. There are never more than are under way.
    fn filled(
        &self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        let spare = self.spare.try_recv();
        let mut buffer = spare.unwrap_or_else(|_| vec![0; CHUNK]);
        fill(&mut buffer[..length])?;
        Ok(Bytes::from_owner(Lent {
            buffer,
            length,
            back: self.back.clone(),
        }))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nobody takes it back when all has been read.
        let _ = self.back.send(std::mem::take(&mut self.buffer));
    }
}

/// Sends exactly `size` bytes: a blob never changes once it has its name.
fn send_file(
    mut file: impl Read,
    size: u64,
    buffers: &Buffers,
    put: impl Fn(Bytes) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let room = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        put(buffers.filled(room, |bytes| file.read_exact(bytes))?)?;
        left -= room as u64;
    }
    Ok(())
}

/// Times are zero, so that the same images give the same archive.
fn header(name: &str, size: u64) -> io::Result<Bytes> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    let is_directory = name.ends_with('/');
    header.set_entry_type(if is_directory {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(if is_directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(size: u64) -> Bytes {
    let left = (size % BLOCK as u64) as usize;
    Bytes::from_static(&[0; BLOCK]).split_to((BLOCK - left) % BLOCK)
}
