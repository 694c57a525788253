//! Which registry this host is in, and its connection to that.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use nuncio_registry::{ConnectError, ConnectOptions, Registry, embedded};
use tokio_util::sync::CancellationToken;

use super::mesh::Mesh;
use super::node::Identity;
use crate::cli::daemon::{DaemonOptions, RegistryChoice};

/// Port of the embedded registry, etcd's own.
pub(crate) const PORT: u16 = 2379;
/// How long it may take to answer at start.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the registry, if this host is to keep it, and connects.
pub(super) async fn open(
    options: &DaemonOptions,
    mesh: Option<&Mesh>,
    node: &Identity,
    stop: &CancellationToken,
) -> anyhow::Result<Registry> {
    let (endpoints, dialer) = match (mesh, &options.registry) {
        (Some(mesh), None) if options.registry_listen.is_none() => {
            if mesh.is_manager() {
                mesh.serve(store(options)?, stop).await?;
            }
            (vec![mesh.registry_url()], Some(mesh.dialer()))
        }
        (Some(mesh), _) => bail!(
            "this node is part of a mesh, whose registry is at {}: leave --registry and --registry-listen out",
            mesh.registry_url()
        ),
        (None, Some(RegistryChoice::Urls(urls))) => (urls.clone(), None),
        (None, Some(RegistryChoice::Embedded) | None) => {
            let address = embed(options, stop).await?;
            (vec![format!("http://{address}")], None)
        }
    };
    let connect = ConnectOptions {
        endpoints,
        timeout: TIMEOUT,
        tls: options.registry_access.tls(),
        user: options.registry_access.user()?,
        dialer,
    };
    match Registry::connect(&connect).await {
        Ok(registry) => Ok(registry),
        Err(error @ ConnectError::TooOld { .. }) => Err(error).context("another etcd is needed"),
        Err(error) if options.data_root.join("catalog.json").exists() => {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(
                node = node.name,
                error,
                "the registry does not answer: going on with what was known"
            );
            Ok(Registry::connect_lazy(&connect).await?)
        }
        Err(error) => Err(error).context(match mesh {
            Some(_) => "cannot reach the mesh's registry: check that its manager's daemon runs",
            None => "cannot reach the registry: check --registry, and that it runs",
        }),
    }
}

fn store(options: &DaemonOptions) -> anyhow::Result<embedded::Server> {
    let directory = options.data_root.join("registry");
    embedded::Server::open_with_quota(&directory, options.registry_quota)
        .context("open the embedded registry")
}

/// Serves it to everybody who connects.
async fn embed(options: &DaemonOptions, stop: &CancellationToken) -> anyhow::Result<SocketAddr> {
    let wanted = match (options.registry_listen, options.advertise) {
        (Some(address), _) => address,
        (None, Some(address)) => (address, PORT).into(),
        (None, None) => ([127, 0, 0, 1], PORT).into(),
    };
    let bound = store(options)?
        .bind(wanted)
        .await
        .with_context(|| format!("the embedded registry cannot listen: choose another address than {wanted} with --registry-listen"))?;
    let address = bound.local_addr();
    tracing::info!(%address, "serving the registry");
    tokio::spawn(bound.serve(stop.clone()));
    Ok(address)
}
