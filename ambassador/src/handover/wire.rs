//! What the two processes say to each other: JSON, one message per packet, sockets beside it.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Grows when an older successor could not understand what is said.
pub(super) const VERSION: u32 = 1;
/// The kernel passes at most 253 in one message.
pub(super) const MOST_SOCKETS: usize = 128;
const LARGEST: usize = 4 << 10;

/// What is said, in this order: hello, the listeners, accepting, stopped.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Message {
    /// The predecessor's first word: so many messages with sockets follow.
    Hello { version: u32, listeners: usize },
    /// Sockets of one listener. One that has many comes in several messages.
    Listener(Named),
    /// The successor takes newcomers; the predecessor may stop to.
    Accepting,
    /// The predecessor takes no more newcomers.
    Stopped,
}

/// What a listener is called and was asked for; its sockets know their addresses.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) protocol: Transport,
    pub(super) address: SocketAddr,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) only_v6: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    Tcp,
    Udp,
}

pub(super) fn send(to: &OwnedFd, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the message is too long",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many sockets"));
    }
    sendmsg(
        to,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// A message and the sockets beside it, whatever they are.
pub(super) fn receive(from: &OwnedFd) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut bytes = [0; LARGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            sockets.extend(passed);
        }
    }
    if received.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        // Too long, or this process may open no more descriptors.
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the message is cut off",
        ));
    }
    Ok((parse(&bytes[..received.bytes])?, sockets))
}

fn parse(bytes: &[u8]) -> io::Result<Message> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::fd::AsFd;

    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn sockets_go_beside_the_message_that_names_them() {
        let (ours, theirs) = pair();
        let sockets: Vec<_> = (0..MOST_SOCKETS)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let message = Message::Listener(Named {
            name: "redis".into(),
            protocol: Transport::Udp,
            address: "[::]:53".parse().unwrap(),
            only_v6: true,
        });
        send(&ours, &message, &borrowed).unwrap();
        send(&ours, &Message::Accepting, &[]).unwrap();
        let (received, passed) = receive(&theirs).unwrap();
        assert_eq!(received, message);
        for (sent, passed) in sockets.iter().zip(passed) {
            let passed = std::net::UdpSocket::from(passed);
            assert_eq!(sent.local_addr().unwrap(), passed.local_addr().unwrap());
        }
        assert_eq!(receive(&theirs).unwrap().0, Message::Accepting);
        drop(ours);
        let error = receive(&theirs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_too_long_is_refused_by_either_side() {
        let (ours, theirs) = pair();
        let name = "x".repeat(LARGEST);
        let named = Named {
            name,
            protocol: Transport::Tcp,
            address: "127.0.0.1:1".parse().unwrap(),
            only_v6: false,
        };
        assert!(send(&ours, &Message::Listener(named), &[]).is_err());
        rustix::net::send(&ours, &[b' '; LARGEST + 1], SendFlags::empty()).unwrap();
        let error = receive(&theirs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_an_error(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..200),
                r#"\{"(hello|listener|accepting)":(\{"version":[0-9]{1,12}(,"listeners":-?[0-9]{1,25})?\}|null|\[\])\}"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            let (ours, theirs) = pair();
            rustix::net::send(&ours, &bytes, SendFlags::empty()).unwrap();
            match receive(&theirs) {
                Ok((message, sockets)) => {
                    prop_assert!(sockets.is_empty());
                    let again = parse(&serde_json::to_vec(&message).unwrap()).unwrap();
                    prop_assert_eq!(message, again);
                }
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidData),
            }
        }
    }
}
