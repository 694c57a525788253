//! What a registry's errors mean.

use std::error::Error;
use std::io;

use oci_client::errors::{OciDistributionError, OciErrorCode};

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trouble {
    /// The account may not, or the repository is unknown, which registries do not tell apart.
    Denied,
    /// There is no such tag, manifest or blob.
    Absent,
    /// What came is not what its digest promises.
    Corrupt,
    /// Nobody answers.
    Unreachable,
    /// Anything else that the registry says.
    Other,
}

pub(crate) fn trouble(error: &OciDistributionError) -> Trouble {
    match error {
        _ if is_denial(error) => Trouble::Denied,
        _ if is_absence(error) => Trouble::Absent,
        OciDistributionError::DigestError(_) => Trouble::Corrupt,
        OciDistributionError::RequestError(_) if is_unreachable(error) => Trouble::Unreachable,
        _ => Trouble::Other,
    }
}

fn codes(error: &OciDistributionError) -> impl Iterator<Item = &OciErrorCode> {
    let errors = match error {
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.as_slice(),
        _ => &[],
    };
    errors.iter().map(|error| &error.code)
}

fn is_denial(error: &OciDistributionError) -> bool {
    use OciErrorCode::{Denied, NameUnknown, Unauthorized};
    match error {
        OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::UnauthorizedError { .. } => true,
        OciDistributionError::RequestError(error) => {
            error.status() == Some(reqwest::StatusCode::UNAUTHORIZED)
        }
        OciDistributionError::ServerError { code, .. } => matches!(code, 401 | 403),
        _ => codes(error).any(|code| matches!(code, Denied | NameUnknown | Unauthorized)),
    }
}

fn is_absence(error: &OciDistributionError) -> bool {
    use OciErrorCode::{BlobUnknown, ManifestBlobUnknown, ManifestUnknown, NotFound};
    match error {
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => true,
        _ => codes(error).any(|code| {
            matches!(
                code,
                BlobUnknown | ManifestBlobUnknown | ManifestUnknown | NotFound
            )
        }),
    }
}

/// Whether the failure came from below HTTP: the chain ends in an errno, or in a name that has no address.
fn is_unreachable(error: &OciDistributionError) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if cause.is::<io::Error>()
            || text.contains("client error (Connect)")
            || text.contains("timed out")
        {
            return true;
        }
        source = cause.source();
    }
    false
}
