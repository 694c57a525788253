//! The keys that leave a container running: ctrl-p ctrl-q, or what the user chose.

use std::str::FromStr;

/// Looks for the keys in what is typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DetachKeys {
    /// Never empty.
    keys: Vec<u8>,
    /// So many of them were the last bytes seen, and are held back.
    pending: usize,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self {
            keys: vec![0x10, 0x11],
            pending: 0,
        }
    }
}

impl DetachKeys {
    /// Appends to `passed` what goes to the container; tells whether the keys were pressed.
    pub(crate) fn filter(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        for &byte in typed {
            while self.pending > 0 && self.keys[self.pending] != byte {
                // The first of those held back was no detaching; the others may be its beginning.
                passed.push(self.keys[0]);
                let held = self.keys[1..self.pending].to_vec();
                self.pending = 0;
                for earlier in held {
                    self.take(earlier, passed);
                }
            }
            self.take(byte, passed);
            if self.pending == self.keys.len() {
                self.pending = 0;
                return true;
            }
        }
        false
    }

    fn take(&mut self, byte: u8, passed: &mut Vec<u8>) {
        if self.keys[self.pending] == byte {
            self.pending += 1;
        } else {
            passed.extend_from_slice(&self.keys[..self.pending]);
            self.pending = 0;
            if self.keys[0] == byte {
                self.pending = 1;
            } else {
                passed.push(byte);
            }
        }
    }
}

/// Not keys.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid detach keys ({0}): expected a letter, or ctrl- and one of a-z, @, [, \\, ], ^, _, several with commas between"
)]
pub(crate) struct InvalidKeys(String);

impl FromStr for DetachKeys {
    type Err = InvalidKeys;

    fn from_str(text: &str) -> Result<Self, InvalidKeys> {
        let key = |name: &str| match (name.strip_prefix("ctrl-"), name.as_bytes()) {
            (Some(of), _) => match of.to_ascii_lowercase().as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                [b'@'] => Some(0),
                [b'['] => Some(27),
                [b'\\'] => Some(28),
                [b']'] => Some(29),
                [b'^'] => Some(30),
                [b'_'] => Some(31),
                _ => None,
            },
            (None, [byte]) if byte.is_ascii() => Some(*byte),
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) => Ok(Self { keys, pending: 0 }),
            None => Err(InvalidKeys(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(mut keys: DetachKeys, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut passed = Vec::new();
        let detached = pieces.iter().any(|piece| keys.filter(piece, &mut passed));
        (passed, detached)
    }

    #[test]
    fn both_keys_in_a_row_detach() {
        let of = |pieces: &[&[u8]]| filter(DetachKeys::default(), pieces);
        assert_eq!(of(&[b"ls\x10\x11rm"]), (b"ls".to_vec(), true));
        assert_eq!(of(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(of(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(of(&[b"\x10x\x11"]), (b"\x10x\x11".to_vec(), false));
    }

    #[test]
    fn keys_can_be_chosen() {
        let keys = |text: &str| text.parse::<DetachKeys>().ok();
        let one = keys("ctrl-a").expect("a key");
        assert_eq!(filter(one, &[b"x\x01y"]), (b"x".to_vec(), true));
        let three = keys("a,a,b").expect("keys");
        assert_eq!(filter(three.clone(), &[b"caaab"]), (b"ca".to_vec(), true));
        assert_eq!(filter(three, &[b"aacab."]), (b"aacab.".to_vec(), false));
        assert!(keys("ctrl-@,ctrl-[,ctrl-_").is_some());
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "a,,b", "é"] {
            assert!(keys(wrong).is_none(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_does_not_detach_passes_unchanged(typed: Vec<u8>, cut in 0usize..64) {
            let mut typed = typed;
            typed.retain(|byte| *byte != 0x11);
            typed.push(b'.');
            let (first, second) = typed.split_at(cut.min(typed.len()));
            prop_assert_eq!(filter(DetachKeys::default(), &[first, second]), (typed.clone(), false));
        }

        #[test]
        fn keys_that_repeat_lose_nothing(typed in "[ab]{0,12}") {
            let keys: DetachKeys = "a,a,b".parse().expect("keys");
            let (passed, detached) = filter(keys, &[typed.as_bytes(), b"."]);
            match typed.find("aab") {
                Some(at) => prop_assert_eq!((passed, detached), (typed.as_bytes()[..at].to_vec(), true)),
                None => prop_assert_eq!((passed, detached), (format!("{typed}.").into_bytes(), false)),
            }
        }

        #[test]
        fn any_keys_are_parsed_or_refused(text in "\\PC{0,12}") {
            let _ = text.parse::<DetachKeys>();
        }
    }
}
