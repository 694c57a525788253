//! What a service's specification names and a daemon knows: networks, secrets, configs, images.

use anyhow::bail;
use bollard_stubs::models::{
    DistributionInspect, NetworkAttachmentConfig, Platform, ServiceSpec,
    TaskSpecContainerSpecConfigs, TaskSpecContainerSpecFile, TaskSpecContainerSpecFile1,
    TaskSpecContainerSpecSecrets,
};
use serde_json::{Value, json};

use crate::cli::output::warn;
use crate::cli::parse::{Granted, NetworkFlag, Reference};
use crate::cli::pull::authorized;
use crate::client::{Call, Client};

/// The id of a network that services can join.
///
/// # Errors
///
/// The daemon's words if there is none.
pub(super) async fn network_id(client: &Client, name: &str) -> anyhow::Result<String> {
    let call = client.get(&format!("/networks/{name}"));
    let network: Value = call.query("scope", "swarm").send().await?.json().await?;
    Ok(network["Id"].as_str().unwrap_or(name).to_owned())
}

/// Networks by id, sorted.
///
/// # Errors
///
/// One that is not there, and addresses, which tasks do not keep.
pub(super) async fn networks(
    client: &Client,
    flags: &[NetworkFlag],
) -> anyhow::Result<Vec<NetworkAttachmentConfig>> {
    let mut found = Vec::new();
    for flag in flags {
        if flag.ip.is_some() || flag.ip6.is_some() || flag.mac.is_some() {
            bail!(
                "network {}: tasks of a service have no address of their own to keep: leave out ip, ip6 and mac-address",
                flag.name
            );
        }
        found.push(NetworkAttachmentConfig {
            target: Some(network_id(client, &flag.name).await?),
            aliases: (!flag.aliases.is_empty()).then(|| flag.aliases.clone()),
            driver_opts: (!flag.driver_opts.is_empty())
                .then(|| flag.driver_opts.iter().cloned().collect()),
        });
    }
    found.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(found)
}

/// Secrets, by what they are called.
///
/// # Errors
///
/// One that is not there, and two that would be the same file.
pub(in crate::cli) async fn secrets(
    client: &Client,
    wanted: &[Granted],
) -> anyhow::Result<Vec<TaskSpecContainerSpecSecrets>> {
    let ids = ids(client, "secret", wanted).await?;
    let secret = |(granted, id): (&Granted, String)| TaskSpecContainerSpecSecrets {
        file: Some(TaskSpecContainerSpecFile {
            name: Some(granted.target.clone()),
            uid: Some(granted.uid.clone()),
            gid: Some(granted.gid.clone()),
            mode: Some(granted.mode),
        }),
        secret_id: Some(id),
        secret_name: Some(granted.source.clone()),
    };
    Ok(wanted.iter().zip(ids).map(secret).collect())
}

/// The same of configs.
///
/// # Errors
///
/// As [`secrets`].
pub(in crate::cli) async fn configs(
    client: &Client,
    wanted: &[Granted],
) -> anyhow::Result<Vec<TaskSpecContainerSpecConfigs>> {
    let ids = ids(client, "config", wanted).await?;
    let config = |(granted, id): (&Granted, String)| TaskSpecContainerSpecConfigs {
        file: Some(TaskSpecContainerSpecFile1 {
            name: Some(granted.target.clone()),
            uid: Some(granted.uid.clone()),
            gid: Some(granted.gid.clone()),
            mode: Some(granted.mode),
        }),
        runtime: None,
        config_id: Some(id),
        config_name: Some(granted.source.clone()),
    };
    Ok(wanted.iter().zip(ids).map(config).collect())
}

async fn ids(client: &Client, kind: &str, wanted: &[Granted]) -> anyhow::Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    for (at, granted) in wanted.iter().enumerate() {
        if wanted[..at]
            .iter()
            .any(|other| other.target == granted.target)
        {
            bail!(
                "duplicate {kind} target for {} not allowed: {}",
                granted.source,
                granted.target
            );
        }
    }
    let names: Vec<&str> = wanted
        .iter()
        .map(|granted| granted.source.as_str())
        .collect();
    let call = client.get(&format!("/{kind}s"));
    let call = call.query("filters", json!({"name": names}).to_string());
    let found: Vec<Value> = call.send().await?.json().await?;
    let id_of = |name: &str| {
        let of_name = found.iter().find(|one| one["Spec"]["Name"] == name);
        of_name.and_then(|one| one["ID"].as_str())
    };
    let ids = names.iter().map(|name| match id_of(name) {
        Some(id) => Ok(id.to_owned()),
        None => bail!("{kind} not found: {name}; nuncio {kind} ls shows those that there are"),
    });
    ids.collect()
}

/// Which image, as a body names it.
#[derive(Debug)]
pub(in crate::cli) struct ImageOf {
    pub(in crate::cli) image: Reference,
    /// Whether the daemon gets the account at the image's registry.
    pub(in crate::cli) with_account: bool,
    /// Whether the registry is asked for the digest.
    pub(in crate::cli) resolve: bool,
}

impl ImageOf {
    /// A call with the account at the image's registry, if it is to have it.
    ///
    /// # Errors
    ///
    /// A configuration that cannot be read, or a credential helper that fails.
    pub(in crate::cli) fn authorize<'a>(&self, call: Call<'a>) -> anyhow::Result<Call<'a>> {
        match self.with_account {
            true => authorized(call, &self.image),
            false => Ok(call),
        }
    }

    /// Writes the image into `spec`: with its digest, and the platforms that it is for, if its registry knows them. What
    /// it does not know is told, for nodes may then run different images.
    ///
    /// # Errors
    ///
    /// As [`ImageOf::authorize`].
    pub(in crate::cli) async fn write(
        &self,
        client: &Client,
        spec: &mut ServiceSpec,
    ) -> anyhow::Result<()> {
        let task = spec.task_template.get_or_insert_default();
        let container = task.container_spec.get_or_insert_default();
        let name = self.image.to_string();
        container.image = Some(name.clone());
        if !self.resolve {
            return Ok(());
        }
        let call = client.get(&format!("/distribution/{name}/json"));
        let found: DistributionInspect = match self.authorize(call)?.send().await {
            Ok(answer) => answer.json().await?,
            Err(error) => {
                tracing::debug!(%error, "look for the digest");
                warn(&format!(
                    "image {name} could not be accessed on a registry to record
its digest. Each node will access {name} independently,
possibly leading to different nodes running different
versions of the image.
"
                ));
                return Ok(());
            }
        };
        if let Some(digest) = found.descriptor.digest.filter(|_| !name.contains('@')) {
            container.image = Some(format!("{name}@{digest}"));
        }
        let platforms = found.platforms.into_iter().map(|platform| Platform {
            // Nodes tell variants of it apart, and registries do not.
            architecture: platform
                .architecture
                .filter(|name| !name.eq_ignore_ascii_case("arm")),
            os: platform.os,
        });
        let platforms: Vec<_> = platforms.collect();
        if !platforms.is_empty() {
            task.placement.get_or_insert_default().platforms = Some(platforms);
        }
        Ok(())
    }
}
