//! Who leads, and that nobody else writes what is the leader's.

use std::convert::Infallible;

use anyhow::{Context as _, Result, bail};
use nuncio_registry::{
    DesireError, DesiredKind, DesiredRecord, LeadError, LeaderRecord, LeaderWrite, Mirror, Needs,
    Presence, Registry, TaskRecord, TaskStatusRecord,
};

use crate::backend::Backend;

on_both!(
    one_leads_and_another_when_it_is_gone,
    what_is_wanted_is_changed_by_who_saw_it,
    what_is_needed_is_there_as_long_as_it_is,
    a_forgotten_task_does_not_come_back,
);

/// A host that is alive, and its lease.
async fn alive(registry: &Registry, node: &str) -> Result<(Presence, i64)> {
    let presence = Presence::start(registry.clone(), node, []);
    let mut state = presence.state();
    let lease = state.wait_for(|state| state.lease.is_some()).await?.lease;
    Ok((presence, lease.context("it was waited for")?))
}

fn leader(node: &str) -> LeaderRecord {
    LeaderRecord {
        node: node.to_owned(),
        since: String::new(),
    }
}

fn task(id: &str, node: &str) -> LeaderWrite {
    LeaderWrite::Task(Box::new(TaskRecord {
        id: id.to_owned(),
        node: Some(node.to_owned()),
        ..TaskRecord::default()
    }))
}

async fn one_leads_and_another_when_it_is_gone(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let (a, lease_a) = alive(&registry, "a").await?;
    let (b, lease_b) = alive(&registry, "b").await?;
    let fence = registry
        .lead(&leader("a"), lease_a)
        .await?
        .context("nobody led")?;
    assert_eq!(registry.lead(&leader("b"), lease_b).await?, None);
    let again = registry
        .lead(&leader("a"), lease_a)
        .await?
        .context("it leads")?;
    registry.write_as_leader(again, &[task("t1", "a")]).await?;
    registry.write_as_leader(fence, &[task("t2", "a")]).await?;

    a.shutdown().await;
    let next = registry
        .lead(&leader("b"), lease_b)
        .await?
        .context("nobody leads")?;
    let late = registry.write_as_leader(fence, &[task("t3", "a")]).await;
    assert!(matches!(late, Err(LeadError::Deposed)), "{late:?}");
    let forget = LeaderWrite::ForgetTask {
        id: "t1".to_owned(),
        node: Some("a".to_owned()),
    };
    let revision = registry.write_as_leader(next, &[forget]).await?;

    let mirror = Mirror::start(registry.clone(), None);
    let mut catalog = mirror.catalog();
    let known = catalog
        .wait_for(|catalog| catalog.revision >= revision)
        .await?;
    let tasks: Vec<&String> = known.desired.tasks.keys().collect();
    assert_eq!(tasks, ["t2"]);
    assert_eq!(
        known
            .desired
            .leader
            .as_ref()
            .map(|leader| leader.node.as_str()),
        Some("b")
    );
    drop(known);
    registry.abdicate(next).await?;
    catalog
        .wait_for(|catalog| catalog.desired.leader.is_none())
        .await?;
    b.shutdown().await;
    mirror.stop().await;
    Ok(())
}

async fn what_is_wanted_is_changed_by_who_saw_it(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let wanted = |id: &str, name: &str| DesiredRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        version: 1,
        ..DesiredRecord::default()
    };
    registry
        .desire(DesiredKind::Service, &wanted("s1", "web"))
        .await?;
    match registry
        .desire(DesiredKind::Service, &wanted("s2", "web"))
        .await
    {
        Err(DesireError::NameTaken { name, by }) => assert_eq!((&*name, &*by), ("web", "s1")),
        other => bail!("the name is taken: {other:?}"),
    }
    // Of another kind the name is free.
    registry
        .desire(DesiredKind::Config, &wanted("c1", "web"))
        .await?;
    let (changed, _) = registry
        .redesire(DesiredKind::Service, "s1", |before| {
            let mut record = before.unwrap_or_default();
            record.version += 1;
            record.name = "front".to_owned();
            Ok::<_, Infallible>(record)
        })
        .await?;
    assert_eq!(changed.version, 2);
    registry
        .desire(DesiredKind::Service, &wanted("s2", "web"))
        .await?;
    assert!(
        registry
            .undesire(DesiredKind::Service, "s1", "front")
            .await?
            .is_some()
    );
    assert!(
        registry
            .undesire(DesiredKind::Service, "s1", "front")
            .await?
            .is_none()
    );
    registry
        .desire(DesiredKind::Service, &wanted("s3", "front"))
        .await?;
    Ok(())
}

async fn what_is_needed_is_there_as_long_as_it_is(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let wanted = |id: &str| DesiredRecord {
        id: id.to_owned(),
        name: id.to_owned(),
        version: 1,
        ..DesiredRecord::default()
    };
    for round in 0..30 {
        let (secret, service) = (wanted(&format!("secret{round}")), format!("service{round}"));
        let needs = Needs::from([(DesiredKind::Secret, secret.id.clone())]);
        registry.desire(DesiredKind::Secret, &secret).await?;
        let record = wanted(&service);
        let unused = |services: &[DesiredRecord]| match services.iter().any(|it| it.id == service) {
            true => Err("it is used"),
            false => Ok(()),
        };
        let (made, removed) = tokio::join!(
            registry.desire_needing(DesiredKind::Service, &record, &needs),
            registry.undesire_unused(DesiredKind::Secret, &secret, DesiredKind::Service, unused),
        );
        match (made, removed) {
            (Ok(_), Err(DesireError::Refused("it is used"))) => {}
            (Err(DesireError::Missing { kind, id }), Ok(Some(_))) => {
                assert_eq!((kind, id), (DesiredKind::Secret, secret.id.clone()));
                continue;
            }
            both => bail!("round {round}: {both:?}"),
        }
        // One that is there may need something else.
        let other = wanted(&format!("other{round}"));
        registry.desire(DesiredKind::Secret, &other).await?;
        let needs = Needs::from([(DesiredKind::Secret, other.id.clone())]);
        let change = |before: Option<DesiredRecord>| {
            let mut record = before.unwrap_or_default();
            record.version += 1;
            Ok::<_, Infallible>(record)
        };
        let id = &record.id;
        let redesire = || registry.redesire_needing(DesiredKind::Service, id, &needs, change);
        redesire().await?;
        let users = DesiredKind::Service;
        let nobody = |_: &[DesiredRecord]| Ok::<_, Infallible>(());
        let remove = || registry.undesire_unused(DesiredKind::Secret, &other, users, nobody);
        assert!(remove().await?.is_some() && remove().await?.is_none());
        let missing = redesire().await;
        assert!(
            matches!(missing, Err(DesireError::Missing { .. })),
            "{missing:?}"
        );
    }
    Ok(())
}

async fn a_forgotten_task_does_not_come_back(backend: Backend) -> Result<()> {
    let registry = backend.registry().await?;
    let (a, lease) = alive(&registry, "a").await?;
    let fence = registry
        .lead(&leader("a"), lease)
        .await?
        .context("nobody led")?;
    registry.write_as_leader(fence, &[task("t1", "a")]).await?;
    let status = TaskStatusRecord {
        task: "t1".to_owned(),
        node: "a".to_owned(),
        state: "running".to_owned(),
        ..TaskStatusRecord::default()
    };
    registry.put_task_status(&status).await?;
    let forget = LeaderWrite::ForgetTask {
        id: "t1".to_owned(),
        node: Some("a".to_owned()),
    };
    let revision = registry.write_as_leader(fence, &[forget]).await?;
    registry.put_task_status(&status).await?;
    let mirror = Mirror::start(registry.clone(), None);
    let mut catalog = mirror.catalog();
    let known = catalog
        .wait_for(|catalog| catalog.revision >= revision)
        .await?;
    assert!(known.desired.tasks.is_empty() && known.desired.statuses.is_empty());
    drop(known);
    a.shutdown().await;
    mirror.stop().await;
    Ok(())
}
