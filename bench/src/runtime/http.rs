//! As much of HTTP as it takes to ask an engine on its unix socket, so that no client's start is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// An engine that lets a client wait for longer fails the measurement.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a body; what is asked here is far below.
const MAX_BODY: usize = 1 << 20;

/// A connection on which one request follows the other.
pub(super) struct Engine(BufReader<UnixStream>);

impl Engine {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request; its answer is for [`head`](Self::head) to read.
    pub(super) fn send(&mut self, path: &str, body: Option<&Value>) -> Result<()> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "POST /v1.41{path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .with_context(|| format!("POST {path}"))
    }

    /// Reads the head of an answer, after which what was asked for has been accepted.
    pub(super) fn head(&mut self) -> Result<Head> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.with_context(|| format!("the engine answered {status:?}"))?;
        let mut body = Body::Length(0);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => return Ok(Head { code, body }),
                Some(("content-length", length)) => body = Body::Length(length.trim().parse()?),
                Some(("transfer-encoding", _)) => body = Body::Chunks,
                Some(_) => {}
            }
        }
    }

    /// Reads the rest of an answer, which must tell of success.
    pub(super) fn body(&mut self, head: &Head) -> Result<Value> {
        let mut content = Vec::new();
        match head.body {
            Body::Length(length) => self.take(length, &mut content)?,
            Body::Chunks => loop {
                let length = self.line()?;
                let length = usize::from_str_radix(&length, 16).context("a chunk's length")?;
                self.take(length, &mut content)?;
                self.line()?;
                if length == 0 {
                    break;
                }
            },
        }
        if !(200..300).contains(&head.code) {
            bail!("{}: {}", head.code, String::from_utf8_lossy(&content));
        }
        if content.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&content).context("the answer is not JSON")
    }

    /// Asks, and waits for all of the answer.
    pub(super) fn post(&mut self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.send(path, body)?;
        let head = self.head()?;
        self.body(&head).with_context(|| format!("POST {path}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("read an answer")?;
        ensure!(!line.is_empty(), "the engine closed the connection");
        Ok(line.trim_end().to_owned())
    }

    fn take(&mut self, length: usize, content: &mut Vec<u8>) -> Result<()> {
        ensure!(length <= MAX_BODY, "an answer of {length} bytes");
        let before = content.len();
        content.resize(before + length, 0);
        Ok(self.0.read_exact(&mut content[before..])?)
    }
}

/// What an answer begins with.
pub(super) struct Head {
    code: u16,
    body: Body,
}

enum Body {
    Length(usize),
    Chunks,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_length_and_by_chunks() -> Result<()> {
        let (near, mut far) = UnixStream::pair()?;
        let mut engine = Engine(BufReader::new(near));
        far.write_all(
            b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"a\"}\
              HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n\
              HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno",
        )?;
        assert_eq!(engine.post("/a", None)?["Id"], "a");
        assert_eq!(engine.post("/b", None)?["a"], 1);
        let refused = engine.post("/c", None).expect_err("a conflict");
        assert!(format!("{refused:#}").contains("409: no"), "{refused:#}");
        Ok(())
    }
}
