/// The least MTU of IPv4 (RFC 791).
const LEAST: u16 = 68;
/// The least MTU of a link that carries IPv6, in bytes (RFC 8200 §5). Of a narrower one the kernel takes IPv6 away.
pub const LEAST_MTU_V6: u16 = 1280;

/// An underlay too narrow for a tunnel.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "underlay MTU {0} leaves a packet of the tunnel less than the {LEAST} bytes that IPv4 needs"
)]
pub struct MtuTooSmall(pub u16);

/// Greatest IP packet inside the tunnel whose VXLAN packet still fits `underlay`.
///
/// Subtracts the outer IPv4 (20) or IPv6 (40), UDP (8), VXLAN (8) and inner Ethernet (14) headers,
/// since a VTEP must not fragment (RFC 7348 §4.3).
///
/// # Errors
///
/// [`MtuTooSmall`] if fewer than 68 bytes remain, the least IPv4 allows (RFC 791).
pub fn inner_mtu(underlay: u16, underlay_is_v6: bool) -> Result<u16, MtuTooSmall> {
    within(underlay, if underlay_is_v6 { 70 } else { 50 })
}

/// Greatest IP packet inside an encrypted tunnel whose UDP packet still fits `underlay`.
///
/// Subtracts the outer IPv4 (20) or IPv6 (40) and UDP (8) headers, and WireGuard's header and tag (32).
///
/// # Errors
///
/// [`MtuTooSmall`] if fewer than 68 bytes remain, the least IPv4 allows (RFC 791).
pub fn sealed_mtu(underlay: u16, underlay_is_v6: bool) -> Result<u16, MtuTooSmall> {
    within(underlay, if underlay_is_v6 { 80 } else { 60 })
}

fn within(underlay: u16, overhead: u16) -> Result<u16, MtuTooSmall> {
    match underlay.checked_sub(overhead) {
        Some(inner) if inner >= LEAST => Ok(inner),
        _ => Err(MtuTooSmall(underlay)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtracts_the_headers() {
        assert_eq!(inner_mtu(1500, false), Ok(1450));
        assert_eq!(inner_mtu(1500, true), Ok(1430));
        assert_eq!(sealed_mtu(1500, false), Ok(1440));
        assert_eq!(sealed_mtu(1500, true), Ok(1420));
        assert_eq!(sealed_mtu(127, false), Err(MtuTooSmall(127)));
        assert_eq!(inner_mtu(118, false), Ok(68));
        assert_eq!(inner_mtu(117, false), Err(MtuTooSmall(117)));
        assert_eq!(inner_mtu(20, true), Err(MtuTooSmall(20)));
    }
}
