//! The 512 bytes in front of each entry (POSIX.1 ustar, and GNU tar's variant of it).

use super::{Kind, TarError};

/// Bytes of a header; data is padded to as many.
pub(crate) const BLOCK: usize = 512;

const NAME: Field = Field(0, 100);
const MODE: Field = Field(100, 8);
const UID: Field = Field(108, 8);
const GID: Field = Field(116, 8);
const SIZE: Field = Field(124, 12);
const MTIME: Field = Field(136, 12);
const CHECKSUM: Field = Field(148, 8);
const KIND: usize = 156;
const LINK: Field = Field(157, 100);
const MAGIC: Field = Field(257, 8);
const MAJOR: Field = Field(329, 8);
const MINOR: Field = Field(337, 8);
const PREFIX: Field = Field(345, 155);
const SPARSE_PIECES: usize = 386;
const SPARSE_MORE: usize = 482;
const SPARSE_SIZE: Field = Field(483, 12);
/// Bytes of one offset and length in a GNU sparse map.
const SPARSE_PIECE: usize = 24;

/// Where a field begins, and its bytes.
#[derive(Clone, Copy)]
struct Field(usize, usize);

pub(super) struct Header {
    block: [u8; BLOCK],
    entry: u64,
}

impl Header {
    /// Takes a block whose checksum is right, as tars of either signedness have written it.
    pub(super) fn new(block: [u8; BLOCK]) -> Option<Self> {
        let header = Self { block, entry: 0 };
        let in_checksum = |at: usize| (CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1).contains(&at);
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, &byte) in block.iter().enumerate() {
            let byte = if in_checksum(at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let stated = number(header.field(CHECKSUM))?;
        (stated == unsigned || stated == signed).then_some(header)
    }

    pub(super) fn at(mut self, entry: u64) -> Self {
        self.entry = entry;
        self
    }

    pub(super) fn kind_flag(&self) -> u8 {
        self.block[KIND]
    }

    pub(super) fn kind(&self, path: &[u8]) -> Option<Kind> {
        Some(match self.kind_flag() {
            // Before there was a type for directories, a slash at the end made one.
            b'\0' | b'0' if path.ends_with(b"/") => Kind::Directory,
            b'\0' | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return None,
        })
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(self.field(NAME));
        // GNU's variant has other fields where ustar has the prefix.
        let is_ustar = self.field(MAGIC).starts_with(b"ustar\0");
        match text(self.field(PREFIX)) {
            prefix if is_ustar && !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(self.field(LINK)).to_vec()
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.unsigned(SIZE, "its size is no number")
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        Ok((self.unsigned(MODE, "its mode is no number")? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        self.unsigned(UID, "its owner is no number")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        self.unsigned(GID, "its group is no number")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        number(self.field(MTIME)).ok_or_else(|| self.malformed("its time is no number"))
    }

    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let problem = "its device number is none";
        let part = |field| {
            let raw = self.unsigned(field, problem)?;
            u32::try_from(raw).map_err(|_| self.malformed(problem))
        };
        Ok((part(MAJOR)?, part(MINOR)?))
    }

    pub(super) fn sparse_real_size(&self) -> Result<u64, TarError> {
        self.unsigned(SPARSE_SIZE, "its sparse size is no number")
    }

    /// The pieces in the header itself, and whether a block with more follows.
    pub(super) fn sparse_pieces(&self) -> Result<(Vec<(u64, u64)>, bool), TarError> {
        let mut map = Vec::new();
        self.read_pieces(&self.block[SPARSE_PIECES..SPARSE_MORE], &mut map)?;
        Ok((map, self.block[SPARSE_MORE] != 0))
    }

    /// Adds the 21 pieces of a block behind the header; whether yet another follows.
    pub(super) fn extend_sparse(
        &self,
        block: &[u8; BLOCK],
        map: &mut Vec<(u64, u64)>,
    ) -> Result<bool, TarError> {
        let more = 21 * SPARSE_PIECE;
        self.read_pieces(&block[..more], map)?;
        Ok(block[more] != 0)
    }

    fn read_pieces(&self, pieces: &[u8], map: &mut Vec<(u64, u64)>) -> Result<(), TarError> {
        for piece in pieces
            .chunks_exact(SPARSE_PIECE)
            .take_while(|piece| piece[0] != 0)
        {
            let (offset, length) = piece.split_at(SPARSE_PIECE / 2);
            let read = |raw| number(raw).and_then(|n| u64::try_from(n).ok());
            let pair = read(offset).zip(read(length));
            map.push(pair.ok_or_else(|| self.malformed("its sparse map is malformed"))?);
        }
        Ok(())
    }

    fn unsigned(&self, field: Field, problem: &'static str) -> Result<u64, TarError> {
        let read = number(self.field(field)).and_then(|n| u64::try_from(n).ok());
        read.ok_or_else(|| self.malformed(problem))
    }

    fn field(&self, Field(start, length): Field) -> &[u8] {
        &self.block[start..start + length]
    }

    fn malformed(&self, problem: &'static str) -> TarError {
        TarError::Malformed {
            entry: self.entry,
            problem,
        }
    }
}

/// A field up to its zero byte.
fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, or with the first bit set a big-endian two's complement number. Blank is 0.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1_i64 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, true) => byte,
                (0, false) => byte & 0x7f,
                _ => byte,
            };
            let fits = value >> 55 == 0 || value >> 55 == -1;
            value = fits.then(|| value << 8 | i64::from(byte))?;
        }
        return Some(value);
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    if digits.iter().any(|digit| !matches!(digit, b'0'..=b'7')) {
        return None;
    }
    i64::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 755 \0\0\0"), Some(0o755));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]),
            Some(0x20001)
        );
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[
                0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
            ]),
            None
        );
        assert_eq!(number(b"0000x44\0"), None);
        assert_eq!(number(b"-000001\0"), None);
    }
}
