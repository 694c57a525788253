//! One host says what runs on it, another one finds it: `cargo run -p nuncio-registry --example discover`.

use std::collections::BTreeMap;

use nuncio_registry::embedded::Server;
use nuncio_registry::{
    ConnectOptions, EndpointRecord, Mirror, PortRecord, Presence, Protocol, Registry,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A registry; with an etcd cluster at hand this part falls away.
    let dir = tempfile::tempdir()?;
    let server = Server::open(dir.path())?
        .bind(([127, 0, 0, 1], 0).into())
        .await?;
    let endpoints = vec![format!("http://{}", server.local_addr())];
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(stop.clone()));

    // Host A is alive and runs a redis.
    let options = ConnectOptions {
        endpoints,
        ..ConnectOptions::default()
    };
    let redis = EndpointRecord {
        network: "mesh".to_owned(),
        id: "c0ffee".to_owned(),
        name: "redis".to_owned(),
        node: "a".to_owned(),
        node_name: "host-a".to_owned(),
        address: [10, 0, 0, 2].into(),
        address_v6: None,
        aliases: Vec::new(),
        ports: vec![PortRecord {
            port: 6379,
            protocol: Protocol::Tcp,
        }],
        labels: BTreeMap::new(),
        services: Vec::new(),
        health: nuncio_registry::EndpointHealth::Unchecked,
    };
    let host_a = Presence::start(Registry::connect(&options).await?, "a", [redis]);

    // Host B follows the registry until it learns where.
    let host_b = Mirror::start(Registry::connect(&options).await?, None);
    let mut catalog = host_b.catalog();
    let known = catalog
        .wait_for(|catalog| !catalog.upstreams("redis", None).is_empty())
        .await?
        .clone();
    for upstream in known.upstreams("redis", None) {
        println!("redis answers at {upstream}");
    }

    host_a.shutdown().await;
    catalog
        .wait_for(|catalog| catalog.endpoints.is_empty())
        .await?;
    println!("and is gone with its host");

    host_b.stop().await;
    stop.cancel();
    serving.await?;
    Ok(())
}
