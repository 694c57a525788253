//! Reads tar streams: ustar, GNU and PAX, with long names, extended attributes and sparse files.
//!
//! The header is decoded here rather than by the `tar` crate, which reads extension records of any size
//! into memory and breaks binary attributes at newlines.

mod header;
mod pax;

use std::io::{self, Read};

pub(crate) use header::BLOCK;
use header::Header;
use pax::Pax;

/// Bytes that the extension records of one entry may have: names, attributes, sparse maps.
const MAX_EXTENSION: u64 = 1 << 20;

/// Why an archive could not be read further.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream failed or ended early.
    #[error("read the archive")]
    Read(#[from] io::Error),
    /// The bytes are no tar archive, or a damaged one.
    #[error("entry {entry} of the archive is malformed: {problem}")]
    Malformed {
        /// Number of the entry, from 1.
        entry: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More entries than allowed.
    #[error("the archive has more than {limit} entries")]
    TooManyEntries {
        /// What is allowed.
        limit: u64,
    },
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    CharDevice,
    BlockDevice,
}

/// Where data lies in a sparse file: offset and length, ascending.
type SparseMap = Vec<(u64, u64)>;

/// One entry, with everything that preceding extension records say of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes of the file once written; holes count.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its data lies, if it has holes.
    pub(crate) sparse: Option<SparseMap>,
}

/// Whether content that begins so looks like an archive, which is not compressed.
pub(crate) fn is_tar(begin: &[u8]) -> bool {
    let block = begin.get(..BLOCK).and_then(|block| block.try_into().ok());
    block.is_some_and(|block| block != [0; BLOCK] && Header::new(block).is_some())
}

/// Walks an archive's entries. Reading gives the stored data of the entry last returned.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry not yet read, and of the padding behind it.
    left: u64,
    padding: u64,
    entries: u64,
    max_entries: u64,
    global: Pax,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R, max_entries: u64) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            entries: 0,
            max_entries,
            global: Pax::default(),
        }
    }

    /// The next entry, skipping what is unread of this one; nothing at the archive's end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = Pax::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.begin_data(header.size()?);
            match header.kind_flag() {
                b'L' => long_name = Some(self.extension()?),
                b'K' => long_link = Some(self.extension()?),
                b'x' => pax = self.pax()?,
                b'g' => {
                    let global = self.pax()?;
                    self.global.update(global);
                }
                _ => {
                    let entry = self.entry(&header, &pax, long_name, long_link)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads to the end of the stream, so that a digest over it is complete.
    pub(crate) fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop)
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: &Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let pax = &self.global.overlaid(pax);
        let path = pax
            .path()
            .map(<[u8]>::to_vec)
            .or(long_name)
            .unwrap_or_else(|| header.path());
        let kind = header
            .kind(&path)
            .ok_or_else(|| self.malformed("its type is unknown"))?;
        // Only files carry data; others may state a size that stands for nothing.
        let is_file = kind == Kind::File;
        let stored = if is_file {
            pax.size.map_or_else(|| header.size(), Ok)?
        } else {
            0
        };
        self.begin_data(stored);
        let (size, sparse) = self
            .sparse(header, pax)?
            .map_or((stored, None), |(size, map)| (size, Some(map)));
        Ok(Entry {
            path,
            link: pax
                .link
                .clone()
                .or(long_link)
                .unwrap_or_else(|| header.link()),
            kind,
            size,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax
                .mtime
                .map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok)?,
            device: if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                header.device()?
            } else {
                (0, 0)
            },
            xattrs: pax.xattrs.clone(),
            sparse,
        })
    }

    /// Size and map of a sparse file; what is left to read is its data.
    fn sparse(&mut self, header: &Header, pax: &Pax) -> Result<Option<(u64, SparseMap)>, TarError> {
        let (size, map) = if header.kind_flag() == b'S' {
            (header.sparse_real_size()?, self.gnu_sparse(header)?)
        } else if pax.is_sparse() {
            let size = pax
                .sparse_size
                .ok_or_else(|| self.malformed("its sparse size is missing"))?;
            let map = match &pax.sparse_map {
                Some(map) => map.clone(),
                None => self.pax_sparse_map()?,
            };
            (size, map)
        } else {
            return Ok(None);
        };
        self.check_sparse(&map, self.left, size)?;
        Ok(Some((size, map)))
    }

    fn begin_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let (left, padding) = (self.left, self.padding);
        (self.left, self.padding) = (0, 0);
        if self.skip(left)? < left {
            return Err(self.truncated());
        }
        // Some writers leave out what would only pad the last entry; the stream then ends here.
        self.skip(padding)?;
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())
    }

    /// The next header block; nothing at a block of zeros or where the stream ends between entries.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        self.entries += 1;
        if self.entries > self.max_entries {
            return Err(TarError::TooManyEntries {
                limit: self.max_entries,
            });
        }
        let header = Header::new(block).ok_or_else(|| self.malformed("its checksum is wrong"))?;
        Ok(Some(header.at(self.entries)))
    }

    /// The whole data of an extension record.
    fn extension(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > MAX_EXTENSION {
            return Err(self.malformed("its name or attributes are longer than 1 MiB"));
        }
        let expected = self.left as usize;
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        if data.len() < expected {
            return Err(self.truncated());
        }
        if let Some(end) = data.iter().position(|&byte| byte == 0)
            && data[end..].iter().all(|&byte| byte == 0)
        {
            data.truncate(end); // GNU names end in a zero byte
        }
        Ok(data)
    }

    fn pax(&mut self) -> Result<Pax, TarError> {
        if self.left > MAX_EXTENSION {
            return Err(self.malformed("its attributes are longer than 1 MiB"));
        }
        let mut data = vec![0; self.left as usize];
        self.read_exact(&mut data)?;
        Pax::parse(&data).map_err(|problem| self.malformed(problem))
    }

    /// GNU's old format: four pieces in the header, more in blocks that follow it.
    fn gnu_sparse(&mut self, header: &Header) -> Result<SparseMap, TarError> {
        let (mut map, mut more) = header.sparse_pieces()?;
        while more {
            let mut block = [0; BLOCK];
            self.inner.read_exact(&mut block)?;
            more = header.extend_sparse(&block, &mut map)?;
            if map.len() as u64 * 24 > MAX_EXTENSION {
                return Err(self.malformed("its sparse map is longer than 1 MiB"));
            }
        }
        Ok(map)
    }

    /// PAX format 1.0: the map stands in decimal lines in front of the data, padded to a block.
    fn pax_sparse_map(&mut self) -> Result<SparseMap, TarError> {
        let before = self.left;
        let count = self.decimal_line()?;
        if count * 2 > MAX_EXTENSION / 2 {
            return Err(self.malformed("its sparse map is longer than 1 MiB"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            map.push((self.decimal_line()?, self.decimal_line()?));
        }
        let unaligned = (before - self.left) % BLOCK as u64;
        if unaligned != 0 {
            let mut rest = vec![0; BLOCK - unaligned as usize];
            self.read_exact(&mut rest)?;
        }
        Ok(map)
    }

    fn decimal_line(&mut self) -> Result<u64, TarError> {
        let mut number = 0_u64;
        for _ in 0..20 {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => return Ok(number),
                digit @ b'0'..=b'9' => {
                    let next = number
                        .checked_mul(10)
                        .and_then(|n| n.checked_add(u64::from(digit - b'0')));
                    number = next.ok_or_else(|| self.malformed("its sparse map is malformed"))?;
                }
                _ => break,
            }
        }
        Err(self.malformed("its sparse map is malformed"))
    }

    fn check_sparse(&self, map: &[(u64, u64)], stored: u64, size: u64) -> Result<(), TarError> {
        let mut end = 0;
        let mut data = 0;
        for &(offset, length) in map {
            if offset < end {
                return Err(self.malformed("the pieces of its sparse map overlap"));
            }
            end = offset
                .checked_add(length)
                .filter(|&end| end <= size)
                .ok_or_else(|| self.malformed("its sparse map goes past the file's end"))?;
            data += length; // no overflow: pieces are disjoint and below `size`
        }
        if data == stored {
            Ok(())
        } else {
            Err(self.malformed("its sparse map does not fit its data"))
        }
    }

    fn malformed(&self, problem: &'static str) -> TarError {
        TarError::Malformed {
            entry: self.entries,
            problem,
        }
    }

    fn truncated(&self) -> TarError {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the archive ends in the middle of an entry",
        )
        .into()
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if room == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..room])?;
        if count == 0 {
            let problem = "the archive ends in the middle of an entry";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
