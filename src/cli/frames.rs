//! Frames in which standard output and error share a stream: `[stream, 0, 0, 0, length (4, big endian)]`, then bytes.

use bytes::{Buf as _, Bytes, BytesMut};

/// Where the bytes of a frame go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Not a frame.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("unrecognized stream {0} in the container's output: expected 0, 1 or 2")]
    Stream(u8),
    /// The daemon's own words.
    #[error("error from daemon in stream: {0}")]
    Daemon(String),
    #[error("the container's output ended in the middle of a frame, {missing} bytes short")]
    Short { missing: usize },
}

const HEADER: usize = 8;
/// Stream on which a daemon tells why the others ended.
const SYSTEM_ERROR: u8 = 3;

/// Takes a stream of frames apart, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
    /// The frame whose bytes come next, and how many are still to come.
    current: Option<(u8, usize)>,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next bytes of a frame, as many as are there; `None` until more are pushed.
    ///
    /// # Errors
    ///
    /// [`BadFrame`], after which nothing else can be made of the stream.
    pub(super) fn next(&mut self) -> Result<Option<(Stream, Bytes)>, BadFrame> {
        loop {
            match self.current {
                None if self.buffer.len() < HEADER => return Ok(None),
                None => {
                    let kind = self.buffer.get_u8();
                    self.buffer.advance(3);
                    self.current = Some((kind, self.buffer.get_u32() as usize));
                }
                Some((_, 0)) => self.current = None,
                Some(_) if self.buffer.is_empty() => return Ok(None),
                Some((SYSTEM_ERROR, left)) if self.buffer.len() < left.min(4096) => {
                    return Ok(None);
                }
                Some((kind, left)) => {
                    let bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                    self.current = Some((kind, left - bytes.len()));
                    return match kind {
                        0 | 1 => Ok(Some((Stream::Out, bytes))),
                        2 => Ok(Some((Stream::Err, bytes))),
                        SYSTEM_ERROR => Err(BadFrame::Daemon(
                            String::from_utf8_lossy(&bytes).into_owned(),
                        )),
                        _ => Err(BadFrame::Stream(kind)),
                    };
                }
            }
        }
    }

    /// To be asked when the stream is over.
    ///
    /// # Errors
    ///
    /// [`BadFrame::Short`] if it ended within a frame.
    pub(super) fn finish(&self) -> Result<(), BadFrame> {
        match self.current {
            Some((_, missing)) if missing > 0 => Err(BadFrame::Short { missing }),
            None if !self.buffer.is_empty() => Err(BadFrame::Short {
                missing: HEADER - self.buffer.len(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
        [&[kind, 0, 0, 0], length.as_slice(), bytes].concat()
    }

    #[test]
    fn bad_streams_are_told() {
        let mut frames = Frames::default();
        frames.push(&frame(7, b"x"));
        assert_eq!(frames.next(), Err(BadFrame::Stream(7)));
        let mut frames = Frames::default();
        frames.push(&frame(3, b"out of disk"));
        assert_eq!(
            frames.next(),
            Err(BadFrame::Daemon("out of disk".to_owned()))
        );
        let mut frames = Frames::default();
        frames.push(&frame(1, b"four")[..10]);
        assert_eq!(
            frames.next(),
            Ok(Some((Stream::Out, Bytes::from_static(b"fo"))))
        );
        assert_eq!(frames.finish(), Err(BadFrame::Short { missing: 2 }));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_bytes(
            wanted in proptest::collection::vec((any::<bool>(), any::<Vec<u8>>()), 0..8),
            cut in 1usize..20,
        ) {
            let stream: Vec<u8> = wanted.iter().flat_map(|(err, bytes)| frame(1 + u8::from(*err), bytes)).collect();
            let mut frames = Frames::default();
            let mut seen = [Vec::new(), Vec::new()];
            for piece in stream.chunks(cut) {
                frames.push(piece);
                while let Some((stream, bytes)) = frames.next().expect("well formed") {
                    seen[usize::from(stream == Stream::Err)].extend_from_slice(&bytes);
                }
            }
            prop_assert_eq!(frames.finish(), Ok(()));
            for (at, seen) in seen.into_iter().enumerate() {
                let of_stream = wanted.iter().filter(|(err, _)| usize::from(*err) == at);
                let expected: Vec<u8> = of_stream.flat_map(|(_, bytes)| bytes.clone()).collect();
                prop_assert_eq!(seen, expected);
            }
        }
    }
}
