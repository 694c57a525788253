//! Contents that move from one registry to another, with hosts at work.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use etcd_client::{Client, GetOptions};
use nuncio_registry::{
    BlockRecord, ConnectOptions, MigrateError, Mirror, NetworkRequest, NodeRecord, Presence,
    Registry, ServiceRecord,
};

use crate::backend::{Backend, Kind, soon};
use crate::presence::endpoint;

fn service(name: &str) -> ServiceRecord {
    ServiceRecord::new(name.to_owned(), Vec::new())
}

/// Keys, values and whether they are on a lease, but for the era.
async fn contents(client: &mut Client) -> Result<Vec<(String, String, bool)>> {
    let all = GetOptions::new().with_prefix();
    let found = client.get("/nuncio/v1/", Some(all)).await?;
    let entries = found.kvs().iter().map(|kv| {
        let (key, value) = (kv.key_str()?.to_owned(), kv.value_str()?.to_owned());
        Ok((key, value, kv.lease() != 0))
    });
    let entries: Result<Vec<_>> = entries.collect();
    Ok(entries?
        .into_iter()
        .filter(|(key, ..)| key != "/nuncio/v1/era")
        .collect())
}

async fn here(backend: &Backend) -> Result<(Registry, Vec<String>)> {
    let options = backend.options();
    let endpoints = options.endpoints.clone();
    Ok((Registry::connect_here(&options).await?, endpoints))
}

async fn migrate(from: &Backend, to: &Backend, force: bool) -> Result<usize, MigrateError> {
    let (source, _) = here(from).await.unwrap();
    let (target, endpoints) = here(to).await.unwrap();
    let moved = source.migrate(&target, &endpoints, force).await?;
    assert!(!moved.already);
    Ok(moved.keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_with_a_host_that_follows() -> Result<()> {
    let embedded = Backend::start(Kind::Embedded).await?;
    let etcd = Backend::start(Kind::ThreeEtcds).await?;
    // So that revisions of the one say nothing of the other.
    let mut client = embedded.client().await?;
    for i in 0..200 {
        client.put("elsewhere", i.to_string(), None).await?;
    }
    let registry = embedded.registry().await?;
    let stranded = embedded.registry().await?; // nothing tells it that the contents move
    let mirror = Mirror::start(registry.clone(), None);
    let mut catalog = mirror.catalog();
    let request = NetworkRequest {
        name: "mesh".to_owned(),
        driver: "overlay".to_owned(),
        pools: vec![("10.64.0.0/12".parse()?, 20)],
        ..NetworkRequest::default()
    };
    let network = registry.create_network(request).await?;
    let subnet = network.subnet.into();
    let block = registry.claim_block(&network, subnet, "n1", 1, &[]).await?;
    let mut published = endpoint("c1", "n1");
    published.network.clone_from(&network.id);
    let presence = Presence::start(registry.clone(), "n1", [published.clone()]);
    soon("the endpoint", presence.settled()).await?;
    registry.put_service(&service("db")).await?;

    for (round, (from, to)) in [(&embedded, &etcd), (&etcd, &embedded), (&embedded, &etcd)]
        .into_iter()
        .enumerate()
    {
        let mut lost = false;
        let before = contents(&mut from.client().await?).await?;
        migrate(from, to, false).await?;
        let arrived = catalog.wait_for(|it| {
            lost |= it.endpoints.len() != 1 || it.alive.len() != 1;
            registry.endpoints() == to.options().endpoints && it.stale.is_none()
        });
        soon("the host follows", arrived).await??;
        soon("it is alive there", presence.settled()).await?;
        assert!(
            !lost,
            "round {round}: the host or its container was gone for a while"
        );
        assert_eq!(contents(&mut to.client().await?).await?, before);

        let name = format!("made-in-{round}");
        registry.put_service(&service(&name)).await?;
        soon(
            "news from there",
            catalog.wait_for(|it| it.service(&name).is_some()),
        )
        .await??;
        let key = format!("/nuncio/v1/endpoints/{}/c1", network.id);
        let mut kv = to.client().await?;
        let ours = async {
            loop {
                let found = kv.get(key.clone(), None).await?.kvs()[0].lease();
                if presence.state().borrow().lease == Some(found) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the endpoint to be on the host's own lease", ours).await??;
    }

    // Whoever has not heard of it writes nothing where the contents were, and who begins there goes on here.
    let moved = stranded.put_service(&service("late")).await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(moved)).contains("has moved"));
    assert!(stranded.release_block(&block).await.is_err());
    assert!(stranded.remove_service("db").await.is_err());
    let newcomer = embedded.registry().await?;
    assert_eq!(newcomer.endpoints(), etcd.options().endpoints);
    assert!(newcomer.remove_service("db").await?);
    let blocks = newcomer.blocks_of(&network.id, "n1").await?;
    assert_eq!(blocks, std::slice::from_ref(&block));
    newcomer.release_block(&block).await?;
    let fresh: BlockRecord = newcomer.claim_block(&network, subnet, "n1", 2, &[]).await?;
    assert_eq!(fresh.cidr, block.cidr);
    presence.shutdown().await;
    mirror.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_again_and_again_under_writes() -> Result<()> {
    let from = Backend::start(Kind::Embedded).await?;
    let to = Backend::start(Kind::Etcd).await?;
    let registry = from.registry().await?;
    let mirror = Mirror::start(registry.clone(), None);
    let mut seeds = BTreeSet::new();
    for i in 0..300 {
        let name = format!("seed-{i}");
        registry.put_service(&service(&name)).await?;
        seeds.insert(name);
    }
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = registry.clone();
    let writer = tokio::spawn(async move {
        let mut acknowledged = BTreeSet::new();
        for i in 0.. {
            let name = format!("late-{i}");
            if writing.put_service(&service(&name)).await.is_ok() {
                acknowledged.insert(name);
            }
            if !matches!(
                stopped.try_recv(),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty)
            ) {
                break;
            }
        }
        acknowledged
    });
    let (source, target) = (here(&from).await?.0, here(&to).await?);
    let mut attempts = 0;
    loop {
        // Dropped in the middle, as when its process is killed.
        let patience = Duration::from_millis(5 * attempts);
        let migrating = source.migrate(&target.0, &target.1, false);
        attempts += 1;
        if let Ok(done) = tokio::time::timeout(patience, migrating).await {
            done?;
            break;
        }
    }
    assert!(attempts > 2, "it was never cut off");
    let again = source.migrate(&target.0, &target.1, false).await?;
    assert!(again.already);
    let follows = async {
        while registry.endpoints() != target.1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the writer follows", follows).await?;
    tokio::time::sleep(Duration::from_millis(100)).await; // some writes more, there
    drop(stop);
    let mut expected = soon("the writer", writer).await??;
    expected.append(&mut seeds);
    let prefix = "/nuncio/v1/services/";
    let found: BTreeSet<String> = contents(&mut to.client().await?)
        .await?
        .into_iter()
        .filter_map(|(key, ..)| {
            Some(
                key.strip_prefix(prefix)?
                    .strip_suffix("/external")?
                    .to_owned(),
            )
        })
        .collect();
    let lost: Vec<_> = expected.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    mirror.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_not_overwritten_unasked() -> Result<()> {
    let from = Backend::start(Kind::Embedded).await?;
    let to = Backend::start(Kind::Etcd).await?;
    let (one, other) = (from.registry().await?, to.registry().await?);
    one.put_service(&service("one")).await?;
    other.put_service(&service("other")).await?;
    let mut client = to.client().await?;
    client.put("not-ours", "kept", None).await?;
    let told = migrate(&from, &to, false).await.unwrap_err();
    assert!(matches!(told, MigrateError::NotEmpty { keys: 1 }), "{told}");
    let told = migrate(&from, &from, true).await.unwrap_err();
    assert!(matches!(told, MigrateError::Same), "{told}");
    migrate(&from, &to, true).await?;
    let keys: Vec<String> = contents(&mut client)
        .await?
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(keys, ["/nuncio/v1/services/one/external"]);
    assert_eq!(client.get("not-ours", None).await?.kvs().len(), 1);
    // Those who were at the target before write no more by what they knew.
    let node = NodeRecord {
        id: "n1".to_owned(),
        name: "a".to_owned(),
        address: [10, 0, 0, 1].into(),
        mac: [2; 6],
        port: 4789,
        incarnation: 1,
        wireguard: None,
        fallback: None,
        links: None,
        peek: None,
        machine: None,
    };
    assert!(other.register_node(&node).await.is_err());
    // To move on from where it no longer is.
    let third = Backend::start(Kind::Embedded).await?;
    let told = migrate(&from, &third, false).await.unwrap_err();
    assert!(matches!(told, MigrateError::Elsewhere(_)), "{told}");
    let nowhere = ConnectOptions {
        endpoints: vec!["http://127.0.0.1:1".to_owned()],
        ..ConnectOptions::default()
    };
    assert!(Registry::connect_here(&nowhere).await.is_err());
    Ok(())
}
