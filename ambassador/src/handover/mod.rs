//! Hot upgrade: a process hands its listening sockets to its successor.
//!
//! The predecessor sends all sockets, and goes on accepting. The successor adopts those that its
//! configuration asks for, accepts as well, and says so. Only then does the predecessor stop to
//! accept, and carries what is open until that ends. Whatever goes wrong before, the predecessor
//! goes on as if nothing had been.
//!
//! TCP newcomers wait in the sockets' own queues, which both processes share: none is refused or
//! reset. A UDP session stays with the predecessor for its replies; a datagram that its client sends
//! after the hand-over begins a session with the successor. The older one ends when it is idle.

mod channel;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, Type};
use tracing::{info, warn};

use crate::open::Sockets;
use crate::{Ambassador, Listen, Protocol};
use channel::{Channel, Door};
use wire::{MOST_SOCKETS, Message, Named, Transport, VERSION};

/// A successor that has said nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Listeners that are taken from a predecessor, at most.
const MOST_LISTENERS: usize = 65_536;

/// Why listeners were not handed over. The predecessor goes on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket where successors come cannot be made.
    #[error("wait for successors at {}; its directory must exist and be writable, and the path short", .path.display())]
    Bind {
        /// Where it was to be.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nobody hands over there.
    #[error("take over the listeners at {}; an ambassador must hand them over there", .path.display())]
    Unreachable {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Only the same user, or root, may take over.
    #[error(
        "the process at the other end belongs to user {uid}; it must run as the same user, or as root"
    )]
    Stranger {
        /// Its user.
        uid: u32,
    },
    /// The other process is too old or too new.
    #[error(
        "the predecessor speaks version {theirs} of the hand-over, and this is version {VERSION}; upgrade by way of a release between them"
    )]
    Version {
        /// What it speaks.
        theirs: u32,
    },
    /// The other process said something else than what is due.
    #[error("{due} was due in the hand-over, and something else came")]
    Unexpected {
        /// What was to come.
        due: &'static str,
    },
    /// The conversation broke off.
    #[error("the hand-over broke off before {due} came")]
    Broken {
        /// What was to come.
        due: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Where the successor of an ambassador comes for its listeners.
#[derive(Debug)]
pub struct Successors {
    door: Door,
}

impl Successors {
    /// Takes the place of whatever is at `path`.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Bind`].
    pub fn bind(path: &Path) -> Result<Self, HandoverError> {
        let door = Door::bind(path).map_err(|source| HandoverError::Bind {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { door })
    }

    /// Waits for a successor that takes over, and returns once `ambassador` takes no newcomers any
    /// more. Its flows go on: [`Ambassador::idle`] tells when they have ended.
    pub async fn serve(&self, ambassador: &Arc<Ambassador>) {
        loop {
            let tried = async {
                let channel = self.door.accept().await?;
                hand_over(&channel, ambassador).await
            };
            match tried.await {
                Ok(()) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "no successor has taken over, and all goes on");
                    // Such as EMFILE: it must not spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn hand_over(channel: &Channel, ambassador: &Ambassador) -> Result<(), HandoverError> {
    let offered = ambassador.offer();
    let mut messages = Vec::new();
    for (bound, sockets) in &offered {
        let named = Named {
            name: bound.name.clone(),
            protocol: bound.listen.protocol.into(),
            address: bound.listen.address,
            only_v6: bound.listen.only_v6,
        };
        let sockets = sockets.descriptors();
        for chunk in sockets.chunks(MOST_SOCKETS) {
            messages.push((named.clone(), chunk.to_vec()));
        }
    }
    let hello = Message::Hello {
        version: VERSION,
        listeners: messages.len(),
    };
    channel.send(&hello, &[]).await?;
    for (named, sockets) in messages {
        channel.send(&Message::Listener(named), &sockets).await?;
    }
    match channel
        .receive("the successor's word that it accepts")
        .await?
    {
        (Message::Accepting, _) => {}
        _ => return Err(HandoverError::Unexpected { due: "accepting" }),
    }
    info!("a successor accepts; what is open goes on here");
    ambassador.hand_over().await;
    if let Err(error) = channel.send(&Message::Stopped, &[]).await {
        let error = &error as &dyn std::error::Error;
        warn!(error, "the successor is gone already");
    }
    Ok(())
}

/// The listeners of a predecessor, which goes on until told that they are taken over.
#[derive(Debug)]
pub struct Heritage {
    channel: Channel,
    pub(crate) listeners: Vec<Inherited>,
}

/// A predecessor's listener.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    pub(crate) name: String,
    pub(crate) listen: Listen,
    pub(crate) sockets: Sockets,
}

impl Heritage {
    /// Asks the ambassador whose [`Successors`] are awaited at `path`. Give it to
    /// [`Ambassador::inherit`] before the configuration is applied; dropped, nothing has changed.
    ///
    /// # Errors
    ///
    /// [`HandoverError`] if there is none, or it does not say what is due.
    pub async fn claim(path: &Path) -> Result<Self, HandoverError> {
        let channel = Channel::connect(path).map_err(|source| HandoverError::Unreachable {
            path: path.to_owned(),
            source,
        })?;
        channel.check_peer()?;
        let due = "the predecessor's hello";
        let count = match channel.receive(due).await? {
            (Message::Hello { version, .. }, _) if version != VERSION => {
                return Err(HandoverError::Version { theirs: version });
            }
            (Message::Hello { listeners, .. }, _) if listeners <= MOST_LISTENERS => listeners,
            _ => return Err(HandoverError::Unexpected { due }),
        };
        let mut heritage = Self {
            channel,
            listeners: Vec::new(),
        };
        for _ in 0..count {
            let due = "the predecessor's next listener";
            match heritage.channel.receive(due).await? {
                (Message::Listener(named), sockets) => heritage.add(named, sockets)?,
                _ => return Err(HandoverError::Unexpected { due }),
            }
        }
        Ok(heritage)
    }

    fn add(&mut self, named: Named, passed: Vec<OwnedFd>) -> Result<(), HandoverError> {
        let listen = Listen {
            protocol: named.protocol.into(),
            address: named.address,
            only_v6: named.only_v6,
        };
        let due = "a listening socket for each listener";
        let fits = passed.iter().all(|socket| is_for(listen.protocol, socket));
        if passed.is_empty() || !fits {
            return Err(HandoverError::Unexpected { due });
        }
        let broken = |source| HandoverError::Broken { due, source };
        let known = (self.listeners.iter_mut())
            .find(|known| known.name == named.name && known.listen == listen);
        match known {
            Some(Inherited { sockets, .. }) => sockets.add(passed),
            None => self.listeners.push(Inherited {
                name: named.name,
                listen,
                sockets: Sockets::adopt(listen.protocol, passed).map_err(broken)?,
            }),
        }
        Ok(())
    }

    /// Tells the predecessor that its newcomers are served here, and returns once it takes none.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Broken`] if it was gone before it said so: then it takes none either.
    pub async fn take_over(self) -> Result<(), HandoverError> {
        self.channel.send(&Message::Accepting, &[]).await?;
        let due = "the predecessor's word that it has stopped";
        match self.channel.receive(due).await? {
            (Message::Stopped, _) => Ok(()),
            _ => Err(HandoverError::Unexpected { due }),
        }
    }
}

fn is_for(protocol: Protocol, socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    match protocol {
        Protocol::Tcp => socket.is_listener().unwrap_or(false),
        Protocol::Udp => socket.r#type().is_ok_and(|kind| kind == Type::DGRAM),
    }
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

#[cfg(test)]
mod tests;
