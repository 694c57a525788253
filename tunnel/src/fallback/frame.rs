//! What is sent inside TLS: packets, each behind its kind and its length.

/// Bytes in front of each.
pub(super) const HEAD: usize = 3;

/// What follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Nothing: the sender lives.
    Pulse = 0,
    /// An IP packet of a network.
    Packet = 1,
    /// A message of WireGuard.
    Message = 2,
}

/// No frame begins like that.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("what came is of kind {0}, which is none")]
pub(super) struct NoFrame(u8);

/// Adds a frame with what `fill` writes and returns the length of, of at most `most` bytes; none, if that is 0. Returns what
/// was added.
pub(super) fn push(
    to: &mut Vec<u8>,
    kind: Kind,
    most: usize,
    fill: impl FnOnce(&mut [u8]) -> usize,
) -> usize {
    let begin = to.len();
    to.resize(begin + HEAD + most, 0);
    let length = fill(&mut to[begin + HEAD..]).min(most);
    let Ok(told) = u16::try_from(length) else {
        to.truncate(begin);
        return 0; // no packet is longer
    };
    if length == 0 && kind != Kind::Pulse {
        to.truncate(begin);
        return 0;
    }
    to[begin] = kind as u8;
    to[begin + 1..begin + HEAD].copy_from_slice(&told.to_be_bytes());
    to.truncate(begin + HEAD + length);
    HEAD + length
}

/// Takes the first frame off `bytes`, if it is whole.
pub(super) fn pop<'b>(bytes: &mut &'b [u8]) -> Result<Option<(Kind, &'b [u8])>, NoFrame> {
    let Some((&[kind, high, low], rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let kind = match kind {
        0 => Kind::Pulse,
        1 => Kind::Packet,
        2 => Kind::Message,
        other => return Err(NoFrame(other)),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    Ok(rest.split_at_checked(length).map(|(frame, rest)| {
        *bytes = rest;
        (kind, frame)
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(with: &[u8]) -> impl FnOnce(&mut [u8]) -> usize {
        |out| {
            out[..with.len()].copy_from_slice(with);
            with.len()
        }
    }

    #[test]
    fn nothing_is_sent_for_what_is_empty_or_too_long_but_a_pulse() {
        let mut bytes = Vec::new();
        assert_eq!(push(&mut bytes, Kind::Packet, 9, |_| 0), 0);
        assert_eq!(push(&mut bytes, Kind::Message, 70_000, |_| 70_000), 0);
        assert!(bytes.is_empty());
        assert_eq!(push(&mut bytes, Kind::Pulse, 0, |_| 0), HEAD);
        assert_eq!(pop(&mut &bytes[..]), Ok(Some((Kind::Pulse, &[][..]))));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            sent in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 1..2000)), 0..20),
            cut in 0..1000usize,
        ) {
            let mut bytes = Vec::new();
            for (sealed, packet) in &sent {
                let kind = if *sealed { Kind::Message } else { Kind::Packet };
                push(&mut bytes, kind, packet.len() + 7, fill(packet));
            }
            let mut rest = &bytes[..];
            for (sealed, packet) in &sent {
                let (kind, frame) = pop(&mut rest).expect("a frame").expect("a whole one");
                prop_assert_eq!(kind == Kind::Message, *sealed);
                prop_assert_eq!(frame, &packet[..]);
            }
            prop_assert_eq!(pop(&mut rest), Ok(None));
            let mut part = &bytes[..bytes.len().saturating_sub(cut + 1)];
            let mut whole = 0;
            while let Ok(Some(_)) = pop(&mut part) {
                whole += 1;
            }
            prop_assert!(whole < sent.len().max(1));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while let Ok(Some(_)) = pop(&mut rest) {}
        }
    }
}
