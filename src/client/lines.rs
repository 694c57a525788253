//! A body that is one JSON document a line.

use bytes::{Buf, BytesMut};
use serde::de::DeserializeOwned;

use super::{Answer, ClientError};

/// More than any line of the Engine API takes.
const LIMIT: usize = 4 << 20;

/// The lines of a body, as they come.
pub(crate) struct Lines {
    answer: Answer,
    pending: BytesMut,
}

impl Lines {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            answer,
            pending: BytesMut::new(),
        }
    }

    /// The next line that is not empty, without its end; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`ClientError::Cut`] if the connection ends first, [`ClientError::LongLine`].
    pub(crate) async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let mut line = self.pending.split_to(end);
                self.pending.advance(1);
                line.truncate(line.trim_ascii_end().len());
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            if self.pending.len() > LIMIT {
                let what = self.answer.what.clone();
                return Err(ClientError::LongLine { what, limit: LIMIT });
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None if self.pending.trim_ascii().is_empty() => return Ok(None),
                None => return Ok(Some(self.pending.split())),
            }
        }
    }

    /// The next line, parsed.
    ///
    /// # Errors
    ///
    /// As [`Lines::next`]; [`ClientError::Unexpected`] if it is not what `T` wants.
    pub(crate) async fn next_json<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<T>, ClientError> {
        let Some(line) = self.next().await? else {
            return Ok(None);
        };
        let what = || self.answer.what.clone();
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|source| ClientError::Unexpected {
                what: what(),
                source,
            })
    }
}
