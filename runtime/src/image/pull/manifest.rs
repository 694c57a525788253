//! Asks a registry for a manifest, and takes no more of it than a manifest may have.

use oci_client::RegistryOperation;
use oci_client::errors::{DigestError, OciDistributionError, OciEnvelope};
use oci_client::secrets::RegistryAuth;
use reqwest::header::ACCEPT;
use reqwest::{Response, StatusCode};

use super::{PullError, Source};
use crate::image::digest::Digest;
use crate::image::reference::Reference;

/// What manifests are understood. Schema 1 has been gone from registries for years.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// What the registry says of the content's digest.
const DIGEST: &str = "docker-content-digest";
/// Bytes of an error's body that are looked at.
const ERROR_LIMIT: u64 = 64 << 10;

impl Source {
    /// The manifest or index as served, of at most `limit` bytes; it has the digest by which it was asked for, and that which
    /// the registry tells.
    pub(in crate::image) async fn manifest(
        &self,
        reference: &Reference,
        limit: u64,
    ) -> Result<Vec<u8>, PullError> {
        let name = || reference.familiar();
        let failed = |error| self.failed(error, name());
        let http = self.endpoint.http()?;
        let answer = self.ask(&http, reference).await.map_err(failed)?;
        let told = answer.headers().get(DIGEST);
        let told = told.and_then(|told| told.to_str().ok()?.parse::<Digest>().ok());
        let content = read(answer, limit).await;
        let content = content.map_err(|error| failed(error.into()))?;
        let content = content.ok_or_else(|| PullError::ManifestTooLarge {
            name: name(),
            limit,
        })?;
        let found = Digest::of(&content);
        let mut expected = reference.digest().into_iter().chain(told);
        match expected.find(|&expected| expected != found) {
            Some(expected) => Err(failed(
                DigestError::VerificationError {
                    expected: expected.to_string(),
                    actual: found.to_string(),
                }
                .into(),
            )),
            None => Ok(content),
        }
    }

    /// Asks as whom the registry wants: with a token, else as nobody, and with a password only when it asks for one.
    async fn ask(
        &self,
        http: &reqwest::Client,
        reference: &Reference,
    ) -> Result<Response, OciDistributionError> {
        let wanted = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let url = format!("/v2/{}/manifests/{wanted}", reference.repository());
        let url = self.endpoint.url(&url);
        let request = || http.get(&url).header(ACCEPT, MANIFESTS);
        let token = self.token.get_or_try_init(async || {
            let address = self.address(&self.image);
            let pull = RegistryOperation::Pull;
            self.client.auth(&address, &self.auth, pull).await
        });
        let answer = match (token.await?, &self.auth) {
            (Some(token), _) => request().bearer_auth(token).send().await?,
            (None, RegistryAuth::Basic(name, password)) => {
                let answer = request().send().await?;
                match answer.status() {
                    StatusCode::UNAUTHORIZED => {
                        request().basic_auth(name, Some(password)).send().await?
                    }
                    _ => answer,
                }
            }
            (None, _) => request().send().await?,
        };
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(OciDistributionError::UnauthorizedError { url }),
            status => {
                let body = read(answer, ERROR_LIMIT).await?.unwrap_or_default();
                Err(match serde_json::from_slice::<OciEnvelope>(&body) {
                    Ok(envelope) => OciDistributionError::RegistryError { envelope, url },
                    Err(_) => OciDistributionError::ServerError {
                        code: status.as_u16(),
                        url,
                        message: String::from_utf8_lossy(&body).into_owned(),
                    },
                })
            }
        }
    }
}

/// The body; nothing if it has more than `limit` bytes.
async fn read(mut answer: Response, limit: u64) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
