//! Services of the registry as upstreams of the ambassador.

use std::sync::Arc;
use std::time::SystemTime;

use nuncio_ambassador::{Discovery, EndpointSet, Failure, Host, Resolver};
use nuncio_registry::{Catalog, Upstream};
use tokio::sync::watch;

type Sets = watch::Receiver<Arc<EndpointSet>>;

/// `resolver`, which finds services in `catalog` from now on.
pub(super) fn with_services(
    resolver: Resolver,
    catalog: watch::Receiver<Arc<Catalog>>,
) -> Resolver {
    let hosts = resolver.clone();
    resolver.with_services(move |service, port| {
        let (publish, sets) = watch::channel(Arc::default());
        tokio::spawn(follow(
            catalog.clone(),
            service.to_owned(),
            port,
            hosts.clone(),
            publish,
        ));
        Ok(sets)
    })
}

/// Keeps a service's set fresh, as long as anybody wants it.
async fn follow(
    mut catalog: watch::Receiver<Arc<Catalog>>,
    service: String,
    port: Option<u16>,
    hosts: Resolver,
    publish: watch::Sender<Arc<EndpointSet>>,
) {
    let mut wanted: Option<Vec<Upstream>> = None;
    let mut sets: Option<Sets> = None;
    let mut heard = SystemTime::now();
    loop {
        let latest = catalog.borrow_and_update().clone();
        let known = known(&latest, &service, port);
        if known.is_some() && known != wanted {
            wanted = known;
            sets = wanted
                .as_deref()
                .map(|upstreams| resolve(upstreams, &hosts));
        }
        if let Some(sets) = &mut sets {
            let mut set = EndpointSet::clone(&sets.borrow_and_update());
            set.discovery = discovery(&latest, heard, set.discovery.failure);
            let set = Arc::new(set);
            publish.send_if_modified(|current| {
                let changed = *current != set;
                *current = set;
                changed
            });
        }
        tokio::select! {
            () = publish.closed() => return,
            changed = catalog.changed() => match changed {
                Ok(()) => heard = SystemTime::now(),
                Err(_) => return,
            },
            () = changed(&mut sets) => {}
        }
    }
}

/// How the service is known: `heard` is when the registry last told anything.
fn discovery(catalog: &Catalog, heard: SystemTime, unresolved: Option<Failure>) -> Discovery {
    let stale = catalog.stale.map(|since| Failure {
        at: since,
        error: "the registry does not answer, or holds endpoints back".to_owned(),
    });
    Discovery {
        answered: Some(catalog.stale.unwrap_or(heard)),
        revision: Some(catalog.revision),
        failure: stale.or(unresolved),
    }
}

/// Where the service is; `None` before the registry has answered.
fn known(catalog: &Catalog, service: &str, port: Option<u16>) -> Option<Vec<Upstream>> {
    (catalog.revision > 0).then(|| catalog.upstreams(service, port))
}

/// Addresses are at once a set; names are watched.
fn resolve(upstreams: &[Upstream], hosts: &Resolver) -> Sets {
    let named = |upstream: &Upstream| Host {
        name: upstream.host.clone(),
        port: upstream.port,
        weight: upstream.weight,
    };
    let named: Vec<_> = upstreams.iter().map(named).collect();
    hosts.hosts(&named)
}

/// Returns when the sets change; never, if there are none or they are fixed.
async fn changed(sets: &mut Option<Sets>) {
    if let Some(sets) = sets
        && sets.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU16;

    use nuncio_registry::ServiceRecord;

    use super::*;

    const WEIGHT: NonZeroU16 = NonZeroU16::new(3).expect("not 0");

    fn catalog(revision: i64, upstreams: &[(&str, u16)]) -> Arc<Catalog> {
        let upstreams = upstreams.iter().map(|(host, port)| Upstream {
            host: (*host).to_owned(),
            port: *port,
            weight: WEIGHT,
        });
        let record = ServiceRecord::new("redis", upstreams.collect());
        let services = BTreeMap::from([("redis".to_owned(), Arc::new(record))]);
        Arc::new(Catalog {
            revision,
            services,
            ..Catalog::default()
        })
    }

    #[tokio::test]
    async fn sets_follow_the_catalog() {
        let (change, catalogs) = watch::channel(Arc::new(Catalog::default()));
        let (publish, mut sets) = watch::channel(Arc::default());
        let task = tokio::spawn(follow(
            catalogs,
            "redis".to_owned(),
            None,
            Resolver::new(),
            publish,
        ));
        assert!(!sets.borrow().resolved, "the registry has not answered");
        for host in ["10.0.0.1", "10.0.0.2"] {
            change.send_replace(catalog(1, &[(host, 6379)]));
            let expected = format!("{host}:6379").parse().expect("an address");
            let arrived = sets.wait_for(|set| set.endpoints == [expected]).await;
            let arrived = arrived.expect("a set");
            assert!(arrived.resolved);
            assert_eq!(arrived.weight(expected), WEIGHT);
            assert_eq!(arrived.discovery.revision, Some(1));
            assert!(arrived.discovery.answered.is_some() && arrived.discovery.failure.is_none());
        }
        drop(sets);
        task.await.expect("it ends with those who want it");
    }
}
