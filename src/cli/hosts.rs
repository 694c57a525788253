//! All hosts at once: each is asked by way of the daemon that is spoken to, and one that does not answer is named and left out.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::output::warn;
use crate::client::{Call, Client, ClientError};

/// A host, as the daemon tells it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HostName {
    #[serde(rename = "ID")]
    id: String,
    pub(super) name: String,
    alive: bool,
    /// Whether it is the host of the daemon that was asked.
    me: bool,
}

impl HostName {
    /// A request for what the host tells of itself.
    pub(super) fn get<'c>(&self, client: &'c Client, path: &str) -> Call<'c> {
        client.get(&format!("/nuncio/v1/nodes/{}/peek{path}", self.id))
    }
}

/// The hosts, this one first and the others by name; of those that are not heard of it is told on standard error.
///
/// # Errors
///
/// If the daemon does not say.
pub(super) async fn hosts(client: &Client) -> Result<Vec<HostName>, ClientError> {
    let mut hosts: Vec<HostName> = client.get("/nuncio/v1/nodes").send().await?.json().await?;
    hosts.sort_by(|a, b| (!a.me, &a.name).cmp(&(!b.me, &b.name)));
    let (heard, silent): (Vec<_>, Vec<_>) =
        hosts.into_iter().partition(|host| host.alive || host.me);
    for host in silent {
        warn(&format!(
            "nuncio: host {}: not heard of, left out",
            host.name
        ));
    }
    Ok(heard)
}

/// Names hosts that do not answer, each once until it does again.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeSet<String>);

impl Complaints {
    /// Tells that a host does not answer; the others go on.
    pub(super) fn silent(&mut self, host: &str, error: &anyhow::Error) {
        if self.0.insert(host.to_owned()) {
            warn(&format!("nuncio: {}", words(host, error)));
        }
    }

    /// Notes that it does.
    pub(super) fn answers(&mut self, host: &str) {
        self.0.remove(host);
    }
}

/// What there is to say of a host that does not answer.
pub(super) fn words(host: &str, error: &anyhow::Error) -> String {
    let told = format!("{error:#}");
    let told = told.trim_start_matches("Error response from daemon: ");
    let named = format!("host {host}: ");
    format!("{named}{}", told.strip_prefix(&named).unwrap_or(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_once() {
        let error = anyhow::anyhow!("Error response from daemon: host b: not reached within 3s");
        assert_eq!(words("b", &error), "host b: not reached within 3s");
        assert_eq!(words("b", &anyhow::anyhow!("cut")), "host b: cut");
    }
}
