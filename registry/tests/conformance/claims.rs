//! Claims under contention: no two get the same.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use etcd_client::{GetOptions, PutOptions};
use ipnetwork::Ipv4Network;
use nuncio_registry::{
    ClaimBlockError, CreateNetworkError, NetworkRequest, NodeRecord, RegisterNodeError, Registry,
    ReleaseBlockError, RemoveNetworkError, ServiceRecord, Upstream, overlapping,
};
use tokio::task::JoinSet;

use crate::backend::Backend;

on_both!(
    parallel_blocks_differ,
    parallel_networks_do_not_overlap,
    a_network_may_carry_both_families,
    one_name_one_network,
    what_is_taken_is_named,
    blocks_run_out,
    release_is_fenced,
    networks_in_use_stay,
    nodes,
    unknown_fields_stay,
);

fn net(text: &str) -> Ipv4Network {
    text.parse().unwrap()
}

fn request(name: &str) -> NetworkRequest {
    NetworkRequest {
        name: name.to_owned(),
        driver: "overlay".to_owned(),
        pools: vec![(net("10.64.0.0/12").into(), 20)],
        ..NetworkRequest::default()
    }
}

async fn parallel<T: Send + 'static>(
    count: usize,
    task: impl Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = T> + Send>>,
) -> Result<Vec<T>> {
    let mut tasks = JoinSet::new();
    for i in 0..count {
        tasks.spawn(task(i));
    }
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result?);
    }
    Ok(results)
}

async fn parallel_blocks_differ(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let mut wide = request("mesh");
    wide.subnet = Some(net("10.0.0.0/16"));
    let network = registry.create_network(wide).await?;
    let claimed = parallel(40, |i| {
        let (registry, network) = (registry.clone(), network.clone());
        Box::pin(async move {
            let avoid = ["10.0.2.0/23".parse().unwrap()];
            registry
                .claim_block(&network, network.subnet.into(), &format!("n{i}"), 1, &avoid)
                .await
        })
    })
    .await?;
    let blocks: Vec<_> = claimed.into_iter().collect::<Result<_, _>>()?;
    let avoid = ["10.0.2.0/23".parse().unwrap()];
    let distinct: BTreeSet<_> = blocks.iter().map(|block| block.cidr).collect();
    assert_eq!(distinct.len(), 40);
    assert!(
        distinct
            .iter()
            .all(|cidr| cidr.prefix() == 24 && overlapping(*cidr, &avoid).is_none())
    );
    for block in &blocks {
        let owned = registry.blocks_of(&network.id, &block.node).await?;
        assert_eq!(owned, std::slice::from_ref(block));
    }
    Ok(())
}

async fn parallel_networks_do_not_overlap(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let created = parallel(24, |i| {
        let registry: Registry = registry.clone();
        Box::pin(async move { registry.create_network(request(&format!("net{i}"))).await })
    })
    .await?;
    let networks: Vec<_> = created.into_iter().collect::<Result<_, _>>()?;
    let vnis: BTreeSet<_> = networks.iter().map(|network| network.vni).collect();
    assert_eq!(vnis, (4096..4096 + 24).collect());
    for (i, one) in networks.iter().enumerate() {
        assert!(
            networks[..i]
                .iter()
                .all(|other| !other.subnet.overlaps(one.subnet)),
            "{one:?}"
        );
    }
    assert_eq!(registry.networks().await?.len(), 24);
    Ok(())
}

async fn a_network_may_carry_both_families(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let dual = |name: &str| NetworkRequest {
        v6: true,
        pools: vec![
            (net("10.64.0.0/12").into(), 20),
            ("fd00:5::/48".parse().unwrap(), 64),
        ],
        avoid: vec!["fd00:5::/64".parse().unwrap()],
        ..request(name)
    };
    let one = registry.create_network(dual("one")).await?;
    assert_eq!(one.subnet_v6, "fd00:5:0:1::/64".parse().ok());
    assert_eq!(registry.network_named("one").await?, Some(one.clone()));
    let two = registry.create_network(dual("two")).await?;
    assert_eq!(two.subnet_v6, "fd00:5:0:2::/64".parse().ok());
    for (subnet, words) in [
        (
            "fd00:5:0:1:8::/80",
            "overlaps fd00:5:0:1::/64 of network one",
        ),
        ("fd00:5:0:0:8::/80", "to which this host has a route"),
        ("fd00:6::/121", "too small"),
    ] {
        let wrong = NetworkRequest {
            subnet_v6: subnet.parse().ok(),
            ..dual("wrong")
        };
        let error = registry.create_network(wrong).await;
        let error = error.expect_err(subnet).to_string();
        assert!(error.contains(words), "{error}");
    }
    // A host has blocks of both, and each is claimed by itself.
    let [v4, v6] = [0, 1].map(|index| one.subnets().nth(index));
    let mut blocks = Vec::new();
    for subnet in [v4, v6, v6].into_iter().flatten() {
        let block = registry.claim_block(&one, subnet, "n", 1, &[]).await?;
        blocks.push(block.cidr.to_string());
    }
    assert_eq!(
        blocks,
        ["10.64.0.0/24", "fd00:5:0:1::/80", "fd00:5:0:1:1::/80"]
    );
    assert_eq!(registry.blocks_of(&one.id, "n").await?.len(), 3);
    // All of it is free again with the network.
    registry.remove_network(&one.id).await?;
    let again = registry.create_network(dual("again")).await?;
    assert_eq!(again.subnet_v6, one.subnet_v6);
    Ok(())
}

async fn one_name_one_network(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let created = parallel(16, |_| {
        let registry = registry.clone();
        Box::pin(async move { registry.create_network(request("mesh")).await })
    })
    .await?;
    let won: Vec<_> = created
        .iter()
        .filter_map(|result| result.as_ref().ok())
        .collect();
    assert_eq!(won.len(), 1);
    for lost in created.iter().filter_map(|result| result.as_ref().err()) {
        let CreateNetworkError::NameTaken { name, id } = lost else {
            panic!("{lost:?}")
        };
        assert_eq!((name.as_str(), id), ("mesh", &won[0].id));
    }
    let ensured = parallel(16, |_| {
        let registry = registry.clone();
        Box::pin(async move { registry.ensure_network(request("bridge")).await })
    })
    .await?;
    let ids: BTreeSet<_> = ensured
        .into_iter()
        .map(|result| result.map(|network| network.id))
        .collect::<Result<_, _>>()?;
    assert_eq!(ids.len(), 1);
    let overlapping = parallel(8, |i| {
        let registry = registry.clone();
        Box::pin(async move {
            let subnet = Some(net(&format!("192.168.{i}.0/16")));
            registry
                .create_network(NetworkRequest {
                    subnet,
                    ..request(&format!("o{i}"))
                })
                .await
        })
    })
    .await?;
    assert_eq!(
        overlapping.iter().filter(|result| result.is_ok()).count(),
        1
    );
    Ok(())
}

async fn what_is_taken_is_named(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let subnet = |text| Some(net(text));
    let first = NetworkRequest {
        subnet: subnet("10.1.0.0/16"),
        vni: Some(7),
        ..request("first")
    };
    let first = registry.create_network(first).await?;
    let refused = async |request: NetworkRequest| {
        registry
            .create_network(request)
            .await
            .unwrap_err()
            .to_string()
    };
    let inside = NetworkRequest {
        subnet: subnet("10.1.2.0/24"),
        ..request("b")
    };
    assert_eq!(
        refused(inside).await,
        "subnet 10.1.2.0/24 overlaps 10.1.0.0/16 of network first"
    );
    let avoid = vec![net("10.2.0.0/24").into()];
    let routed = NetworkRequest {
        subnet: subnet("10.2.0.0/16"),
        avoid,
        ..request("b")
    };
    assert_eq!(
        refused(routed).await,
        "subnet 10.2.0.0/16 overlaps 10.2.0.0/24, to which this host has a route"
    );
    let vni = NetworkRequest {
        vni: Some(7),
        ..request("b")
    };
    assert_eq!(refused(vni).await, "VNI 7 is taken by network first");
    let vni = NetworkRequest {
        vni: Some(1 << 24),
        ..request("b")
    };
    assert_eq!(
        refused(vni).await,
        "VNI 16777216 is not between 1 and 16777215"
    );
    let small = NetworkRequest {
        subnet: subnet("10.3.0.0/29"),
        ..request("b")
    };
    assert!(refused(small).await.contains("10.3.0.0/29 is too small"));
    let full = NetworkRequest {
        pools: vec![(net("10.1.0.0/17").into(), 20)],
        ..request("b")
    };
    assert!(refused(full).await.contains("no free subnet"));
    assert!(refused(request("a/b")).await.contains("\"a/b\""));
    assert!(refused(request("first")).await.contains("already exists"));

    registry.remove_network(&first.id).await?;
    assert!(registry.network_named("first").await?.is_none());
    let again = NetworkRequest {
        subnet: subnet("10.1.0.9/16"),
        vni: Some(7),
        ..request("first")
    };
    assert_eq!(
        registry.create_network(again).await?.subnet,
        net("10.1.0.0/16")
    );
    Ok(())
}

async fn blocks_run_out(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let tiny = NetworkRequest {
        subnet: Some(net("10.9.0.0/28")),
        ..request("tiny")
    };
    let network = registry.create_network(tiny).await?;
    for expected in ["10.9.0.0/29", "10.9.0.8/29"] {
        let block = registry
            .claim_block(&network, network.subnet.into(), "n", 1, &[])
            .await?;
        assert_eq!(block.cidr, net(expected).into());
    }
    let full = registry
        .claim_block(&network, network.subnet.into(), "n", 1, &[])
        .await;
    assert!(
        matches!(full, Err(ClaimBlockError::Exhausted { .. })),
        "{full:?}"
    );
    assert_eq!(registry.blocks_of(&network.id, "n").await?.len(), 2);
    registry.remove_network(&network.id).await?;
    assert!(registry.blocks_of(&network.id, "n").await?.is_empty());
    let gone = registry
        .claim_block(&network, network.subnet.into(), "n", 1, &[])
        .await;
    assert!(
        matches!(gone, Err(ClaimBlockError::NetworkGone(_))),
        "{gone:?}"
    );
    Ok(())
}

async fn release_is_fenced(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let network = registry.create_network(request("mesh")).await?;
    let block = registry
        .claim_block(&network, network.subnet.into(), "n", 4, &[])
        .await?;
    let mut stale = block.clone();
    stale.incarnation = 3;
    let refused = registry.release_block(&stale).await;
    assert!(
        matches!(refused, Err(ReleaseBlockError::NotHeld { .. })),
        "{refused:?}"
    );
    registry.release_block(&block).await?;
    assert!(registry.release_block(&block).await.is_err());
    assert_eq!(
        registry
            .claim_block(&network, network.subnet.into(), "m", 1, &[])
            .await?
            .cidr,
        block.cidr
    );
    Ok(())
}

async fn networks_in_use_stay(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let network = registry.create_network(request("mesh")).await?;
    let mut client = backend.client().await?;
    let key = format!("/nuncio/v1/endpoints/{}/c1", network.id);
    client.put(key.clone(), "{}", None).await?;
    match registry.remove_network(&network.id).await {
        Err(RemoveNetworkError::InUse { network, endpoints }) => {
            assert_eq!(
                (network.as_str(), endpoints),
                ("mesh", vec!["c1".to_owned()])
            );
        }
        other => panic!("{other:?}"),
    }
    client.delete(key, None).await?;
    registry.remove_network(&network.id).await?;
    let all = client
        .get("/nuncio/", Some(GetOptions::new().with_prefix()))
        .await?;
    assert_eq!(all.count(), 0);
    let gone = registry.remove_network(&network.id).await;
    assert!(matches!(gone, Err(RemoveNetworkError::NotFound(_))));
    Ok(())
}

pub(crate) fn node(id: &str, name: &str, last: u8, incarnation: u64) -> NodeRecord {
    NodeRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        address: [10, 0, 0, last].into(),
        mac: [2, 0, 0, 0, 0, last],
        port: 4789,
        incarnation,
        wireguard: None,
        fallback: None,
        links: None,
        peek: None,
        machine: None,
    }
}

async fn nodes(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    registry.register_node(&node("id1", "a", 1, 5)).await?;
    registry.register_node(&node("id1", "a", 1, 6)).await?;
    let old = registry.register_node(&node("id1", "a", 1, 5)).await;
    assert!(
        matches!(old, Err(RegisterNodeError::Superseded { found: 6, .. })),
        "{old:?}"
    );
    // A node that is not alive keeps neither name nor address from others.
    registry.register_node(&node("id2", "a", 1, 1)).await?;
    let mut client = backend.client().await?;
    let lease = client.lease_grant(60, None).await?.id();
    let on = Some(PutOptions::new().with_lease(lease));
    client.put("/nuncio/v1/alive/id1", "{}", on).await?;
    let name = registry.register_node(&node("id3", "a", 3, 1)).await;
    assert!(
        matches!(name, Err(RegisterNodeError::NameTaken { .. })),
        "{name:?}"
    );
    let address = registry
        .register_node(&node("id3", "c", 1, 1))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        address.starts_with("address 10.0.0.1 is in use by live node a"),
        "{address}"
    );
    registry.register_node(&node("id3", "c", 3, 1)).await?;
    let ids: Vec<_> = registry
        .nodes()
        .await?
        .into_iter()
        .map(|node| node.id)
        .collect();
    assert_eq!(ids, ["id1", "id2", "id3"]);
    Ok(())
}

async fn unknown_fields_stay(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let mut client = backend.client().await?;
    let key = "/nuncio/v1/services/db/external";
    client
        .put(
            key,
            r#"{"v":1,"name":"db","upstreams":[],"later":[1]}"#,
            None,
        )
        .await?;
    let upstream = Upstream {
        host: "db.lan".to_owned(),
        port: 5432,
        weight: std::num::NonZeroU16::MIN,
    };
    let service = ServiceRecord::new("db", vec![upstream]);
    registry.put_service(&service).await?;
    let get = client.get(key, None).await?;
    let value = get.kvs().first().context("the service")?.value_str()?;
    assert!(
        value.contains(r#""later":[1]"#) && value.contains("db.lan"),
        "{value}"
    );
    assert!(registry.remove_service("db").await?);
    assert!(!registry.remove_service("db").await?);
    Ok(())
}
