//! What all buffers between a writer and a reader that stalls take together.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use super::{PATIENCE, STOP_READING};

/// Nothing was taken for so long: nothing more will be.
const SILENCE: Duration = Duration::from_millis(500);
/// Whoever takes that much takes anything.
const MOST: usize = 256 << 20;

pub(crate) fn run(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[STOP_READING])?;
    stream.set_nonblocking(true)?;
    let (chunk, mut taken) = (vec![0; 256 << 10], 1);
    while taken < MOST {
        match stream.write(&chunk) {
            Ok(bytes) => taken += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut room = [PollFd::new(&stream, PollFlags::OUT)];
                if poll(&mut room, Some(&SILENCE.try_into()?))? == 0 {
                    break;
                }
            }
            Err(error) => return Err(error).with_context(|| format!("write to {to}")),
        }
    }
    ensure!(taken > 1, "{to} took nothing");
    println!("{taken}");
    Ok(())
}
