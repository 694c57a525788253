//! Tells gzip, zstd and plain apart by their first bytes, whatever a media type or a name claims.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

/// Bytes read at a time.
pub(crate) const BUFFER: usize = 64 << 10;
/// Largest window a zstd frame may ask for, 2^27 bytes: what the zstd tool takes by default.
const MAX_WINDOW_LOG: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What a media type says of content that is compressed like this: `+gzip`, `+zstd` or nothing.
pub(crate) fn compression(reader: impl Read) -> io::Result<&'static str> {
    let mut magic = Vec::with_capacity(ZSTD.len());
    reader.take(ZSTD.len() as u64).read_to_end(&mut magic)?;
    Ok(match &magic[..] {
        magic if magic.starts_with(GZIP) => "+gzip",
        ZSTD => "+zstd",
        _ => "",
    })
}

/// The decompressed content of `reader`, however it is compressed.
pub(crate) fn decompress<'a>(
    reader: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(look_into(reader)?.0)
}

/// [`decompress`], and whether it is compressed at all.
pub(crate) fn look_into<'a>(
    mut reader: impl Read + Send + 'a,
) -> io::Result<(Box<dyn Read + Send + 'a>, bool)> {
    let mut magic = Vec::with_capacity(ZSTD.len());
    reader
        .by_ref()
        .take(ZSTD.len() as u64)
        .read_to_end(&mut magic)?;
    let (gzip, zstd) = (magic.starts_with(GZIP), magic == ZSTD);
    let whole = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(reader));
    if gzip {
        return Ok((Box::new(MultiGzDecoder::new(whole)), true));
    }
    if zstd {
        let mut decoder = ZstdDecoder::with_buffer(whole)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        return Ok((Box::new(decoder), true));
    }
    Ok((Box::new(whole), false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use std::io::Write;

    use super::*;

    fn read(content: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        decompress(content)
            .unwrap()
            .read_to_end(&mut plain)
            .unwrap();
        plain
    }

    #[test]
    fn each_compression_is_recognised_by_its_content() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"content").unwrap();
        assert_eq!(read(&gzip.finish().unwrap()), b"content");
        assert_eq!(
            read(&zstd::encode_all(&b"content"[..], 1).unwrap()),
            b"content"
        );
        assert_eq!(read(b"content"), b"content");
        assert_eq!(read(b"x"), b"x");
        assert_eq!(read(b""), b"");
    }

    #[test]
    fn several_frames_are_one_content() {
        let twice = [
            zstd::encode_all(&b"ab"[..], 1).unwrap(),
            zstd::encode_all(&b"cd"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(read(&twice), b"abcd");
    }
}
