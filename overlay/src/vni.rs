use std::fmt;

/// VXLAN network identifier, 24 bits on the wire (RFC 7348 §5).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Vni(u32);

/// A number that does not fit the 24 bits of a VNI.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("VNI {0} is wider than 24 bits: the greatest is 16777215")]
pub struct VniTooLarge(pub u32);

impl Vni {
    /// The number.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniTooLarge;

    fn try_from(raw: u32) -> Result<Self, VniTooLarge> {
        if raw >> 24 == 0 {
            Ok(Self(raw))
        } else {
            Err(VniTooLarge(raw))
        }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_24_bits_and_no_more() {
        assert_eq!(Vni::try_from(0xff_ffff).map(Vni::value), Ok(0xff_ffff));
        assert_eq!(Vni::try_from(0x100_0000), Err(VniTooLarge(0x100_0000)));
    }
}
