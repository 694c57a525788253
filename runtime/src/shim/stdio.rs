//! The ends of a process's pipes or terminal that the shim holds.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::logs::Stream;
use crate::sys;

/// What the shim reads output from and writes input to.
pub(super) struct Stdio {
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    pub(super) input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Stdio {
    pub(super) fn terminal(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref()
    }

    pub(super) fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }
}

/// The shim's ends while the process does not exist yet.
pub(super) enum Ends {
    Pipes(Stdio),
    Terminal(Console),
}

impl Ends {
    /// The shim's ends and the process's. Without `open_stdin` input reads as empty.
    pub(super) fn pipes(open_stdin: bool) -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdout, stdout_far) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_far) = pipe_with(PipeFlags::CLOEXEC)?;
        let (input, stdin) = if open_stdin {
            let (far, near) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(near), far)
        } else {
            (None, File::open("/dev/null")?.into())
        };
        let outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        Ok((
            Self::Pipes(Stdio {
                outputs,
                input,
                terminal: None,
            }),
            [stdin, stdout_far, stderr_far],
        ))
    }

    /// Once libcontainer has made the process.
    pub(super) fn connect(self) -> io::Result<Stdio> {
        match self {
            Self::Pipes(stdio) => Ok(stdio),
            Self::Terminal(console) => {
                let master = console.receive()?;
                Ok(Stdio {
                    outputs: vec![(Stream::Stdout, master.try_clone()?)],
                    input: Some(master.try_clone()?),
                    terminal: Some(master),
                })
            }
        }
    }
}

/// The socket by which libcontainer hands over the terminal that it makes in the container.
pub(super) struct Console(UnixListener);

impl Console {
    pub(super) const SOCKET: &str = "console.sock";

    pub(super) fn listen() -> io::Result<Self> {
        let _ = std::fs::remove_file(Self::SOCKET); // of an earlier run
        UnixListener::bind(Self::SOCKET).map(Self)
    }

    /// libcontainer has connected and sent by now.
    fn receive(self) -> io::Result<OwnedFd> {
        self.0.set_nonblocking(true)?;
        let (connection, _) = self.0.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut name)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        let received = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        std::fs::remove_file(Self::SOCKET)?;
        received.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "no terminal came with the message",
            )
        })
    }
}

/// Sets the size of a terminal, in characters.
pub(super) fn resize(terminal: &OwnedFd, width: u16, height: u16) -> io::Result<()> {
    Ok(tcsetwinsize(
        terminal,
        Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?)
}

/// A pipe or terminal in the event loop.
pub(super) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    pub(super) fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        sys::register(fd, interest).map(Self)
    }

    /// Waits for output; 0 is its end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|fd| read_now(fd, buffer)) {
                return result;
            }
        }
    }

    /// Takes output that is there; `WouldBlock` if there is none.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        read_now(&self.0, buffer)
    }

    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                bytes = &bytes[result?..];
            }
        }
        Ok(())
    }
}

/// The other end of a terminal being closed is an error to the kernel and the end to us.
fn read_now(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(fd, buffer) {
        Err(rustix::io::Errno::IO) => Ok(0),
        other => Ok(other?),
    }
}
