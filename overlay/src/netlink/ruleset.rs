use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Type of the question, `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` in linux/netfilter, and of its answer.
const GET_GENERATION: u16 = 10 << 8 | 16;
const NEW_GENERATION: u16 = 10 << 8 | 15;
/// The attribute that has the number, `NFTA_GEN_ID`.
const GENERATION: u16 = 1;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Bytes of a message's head, and of what nf_tables' messages have behind it.
const HEAD: usize = 16;
const FAMILY: usize = 4;

/// Counts the changes of all nft rules of a network namespace, whoever made them.
pub(crate) struct Ruleset {
    socket: OwnedFd,
}

impl Ruleset {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        Ok(Self { socket })
    }

    /// A number that is another one after each change.
    pub(crate) fn generation(&self) -> io::Result<u32> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(
            self.socket.as_raw_fd(),
            &question(),
            &kernel,
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 256];
        // the kernel has answered by the time it has taken the question
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        parse(&answer[..length]).ok_or_else(|| {
            let text = "the kernel tells no generation of its nft rules";
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

fn question() -> [u8; HEAD + FAMILY] {
    let mut message = [0; HEAD + FAMILY];
    message[..4].copy_from_slice(&((HEAD + FAMILY) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&GET_GENERATION.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message
}

fn parse(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != NEW_GENERATION {
        return None;
    }
    let mut rest = message.get(HEAD + FAMILY..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(rest[..2].try_into().ok()?));
        let kind = u16::from_ne_bytes(rest[2..4].try_into().ok()?);
        if kind == GENERATION {
            return Some(u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_among_other_attributes() {
        let mut message = question().to_vec();
        message[4..6].copy_from_slice(&NEW_GENERATION.to_ne_bytes());
        let attribute = |kind: u16, value: &[u8]| {
            let length = (4 + value.len()) as u16;
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        assert_eq!(parse(&message), None);
        message.extend(attribute(3, b"nft\0\0"));
        message.extend(attribute(GENERATION, &7u32.to_be_bytes()));
        assert_eq!(parse(&message), Some(7));
        for length in 0..message.len() {
            assert_eq!(parse(&message[..length]), None, "{length} bytes");
        }
        assert_eq!(parse(&question()), None);
    }
}
