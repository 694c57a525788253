//! What certificates say.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};

use crate::names::MeshId;

/// For how long the authority's own certificate is good.
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Clocks of others may be behind by this much: certificates are good from as long before they are made.
pub(crate) const SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// What the authority's certificate says, but for its key.
pub(crate) fn root(mesh: MeshId, now: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("nuncio mesh {mesh}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set_validity(&mut params, now, now.saturating_add(LIFETIME.as_secs()));
    params
}

/// What the certificate of who is called `identity` says, but for its key.
pub(crate) fn leaf(
    identity: &str,
    (issued, expires): (u64, u64),
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, issued, expires);
    Ok(params)
}

/// What the certificate of an operator says, but for its key: a client's alone, with a name for people too.
pub(crate) fn operator(
    name: &str,
    identity: &str,
    validity: (u64, u64),
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = leaf(identity, validity)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, issued: u64, expires: u64) {
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(issued.saturating_sub(SKEW.as_secs()));
    params.not_after = at(expires);
}
