//! Who a certificate of somebody else's authority is for, as it says in its subject.

use rustls::pki_types::CertificateDer;

/// The object identifier of a common name (RFC 5280 §4.1.2.6) in DER: 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
/// Characters that are shown of one.
const LONGEST: usize = 64;

/// The common name of a certificate that has been verified; `None` if it has none.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    in_subject(parsed.subject())
}

fn in_subject(subject: &[u8]) -> Option<String> {
    let at = subject
        .windows(COMMON_NAME.len())
        .position(|window| window == COMMON_NAME)?;
    let [_kind, length, text @ ..] = &subject[at + COMMON_NAME.len()..] else {
        return None;
    };
    // Longer ones, of which the length takes several bytes, are not common names (at most 64 characters).
    let text = text.get(..usize::from(*length).min(text.len()))?;
    let text = String::from_utf8_lossy(text);
    let shown = text.chars().filter(|char| !char.is_control());
    Some(shown.take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_name_is_found_in_a_subject() {
        let named = [&[0x31, 0x0c, 0x30, 0x0a], COMMON_NAME, &[0x0c, 3], b"ann"].concat();
        assert_eq!(in_subject(&named).as_deref(), Some("ann"));
        let cut = [COMMON_NAME, &[0x0c, 200], b"ann"].concat();
        assert_eq!(in_subject(&cut).as_deref(), Some("ann"));
        assert_eq!(in_subject(COMMON_NAME), None);
        assert_eq!(in_subject(b""), None);
    }
}
