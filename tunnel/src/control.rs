//! How the process that carries is told what to: a line of JSON each way, over a unix socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{KeyRing, Tunnel, TunnelDocument, TunnelStatus};

/// The longest line, far above what a thousand hosts take.
const LONGEST: u64 = 16 << 20;
/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Configure(TunnelDocument),
    Status,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Status(TunnelStatus),
    Error(String),
}

/// Why a tunnel's process did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It is not there, or does not answer.
    #[error("ask the tunnel's process")]
    Io(#[from] io::Error),
    /// It said something else than an answer.
    #[error("read the answer of the tunnel's process")]
    Answer(#[from] serde_json::Error),
    /// It could not.
    #[error("{0}")]
    Refused(String),
}

/// Tells the process behind `socket` what to carry, or only asks what it is doing.
///
/// # Errors
///
/// [`AskError`] if it is not there, or cannot do all of it.
pub fn ask(
    socket: &UnixStream,
    document: Option<&TunnelDocument>,
) -> Result<TunnelStatus, AskError> {
    let request = match document {
        Some(document) => Request::Configure(document.clone()),
        None => Request::Status,
    };
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    write_line(socket, &request)?;
    match serde_json::from_str(&read_line(&mut reader(socket))?)? {
        Answer::Status(status) => Ok(status),
        Answer::Error(message) => Err(AskError::Refused(message)),
    }
}

impl Tunnel {
    /// Does what comes by `listener`, one connection after the other, until that fails. The host's own keys are read
    /// from `keys` each time: they never cross the socket.
    ///
    /// # Errors
    ///
    /// If no connection can be accepted.
    pub fn obey(&self, listener: &UnixListener, keys: &Path) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            if let Err(error) = self.converse(&stream, keys) {
                tracing::warn!(%error, "a conversation");
            }
        }
    }

    fn converse(&self, stream: &UnixStream, keys: &Path) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = reader(stream);
        loop {
            let line = read_line(&mut reader)?;
            if line.is_empty() {
                return Ok(());
            }
            let done = serde_json::from_str(&line)
                .map_err(|error| error.to_string())
                .and_then(|request| self.answer(request, keys));
            let answer = done.map_or_else(Answer::Error, Answer::Status);
            write_line(stream, &answer)?;
        }
    }

    fn answer(&self, request: Request, keys: &Path) -> Result<TunnelStatus, String> {
        if let Request::Configure(document) = request {
            let ring = read_ring(keys)
                .map_err(|error| format!("read keys from {}: {error}", keys.display()))?;
            self.configure(&document, &ring).map_err(|error| {
                match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                }
            })?;
        }
        self.status().map_err(|error| error.to_string())
    }
}

fn read_ring(path: &Path) -> io::Result<KeyRing> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn reader(stream: &UnixStream) -> BufReader<io::Take<&UnixStream>> {
    BufReader::new(stream.take(LONGEST))
}

/// A line; empty at the end.
fn read_line(reader: &mut BufReader<io::Take<&UnixStream>>) -> io::Result<String> {
    let mut line = String::new();
    reader.get_mut().set_limit(LONGEST);
    reader.read_line(&mut line)?;
    if !line.is_empty() && !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line that does not end",
        ));
    }
    Ok(line)
}

fn write_line(mut stream: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}
