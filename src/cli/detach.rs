//! The keys that leave a container running: ctrl-p ctrl-q.

const FIRST: u8 = 0x10;
const SECOND: u8 = 0x11;

/// Looks for the keys in what is typed.
#[derive(Debug, Default)]
pub(super) struct DetachKeys {
    /// The first key was the last byte seen, and is held back.
    pending: bool,
}

impl DetachKeys {
    /// Appends to `passed` what goes to the container; tells whether the keys were pressed.
    pub(super) fn filter(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        for &byte in typed {
            if self.pending && byte == SECOND {
                self.pending = false;
                return true;
            }
            if self.pending {
                passed.push(FIRST);
            }
            self.pending = byte == FIRST;
            if !self.pending {
                passed.push(byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::default();
        let mut passed = Vec::new();
        let detached = pieces.iter().any(|piece| keys.filter(piece, &mut passed));
        (passed, detached)
    }

    #[test]
    fn both_keys_in_a_row_detach() {
        assert_eq!(filter(&[b"ls\x10\x11rm"]), (b"ls".to_vec(), true));
        assert_eq!(filter(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(filter(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(filter(&[b"\x10x\x11"]), (b"\x10x\x11".to_vec(), false));
    }

    proptest! {
        #[test]
        fn what_does_not_detach_passes_unchanged(typed: Vec<u8>, cut in 0usize..64) {
            let mut typed = typed;
            typed.retain(|byte| *byte != SECOND);
            typed.push(b'.');
            let (first, second) = typed.split_at(cut.min(typed.len()));
            prop_assert_eq!(filter(&[first, second]), (typed.clone(), false));
        }
    }
}
