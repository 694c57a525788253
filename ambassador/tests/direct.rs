//! Connections that the kernel sends straight to an endpoint, by processes in real cgroups and
//! real namespaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::Protocol;
use nuncio_ambassador::direct::{Rewriter, Scope, probe};

#[path = "support/scene.rs"]
mod scene;
use scene::*;

#[test]
fn this_machine_can() -> Result<()> {
    // Where cgroup2 is mounted, if need be by the scene.
    Scene::run(|_scene| async move { Ok(probe()?) })
}

#[test]
fn a_process_without_capabilities_is_told_so() -> Result<()> {
    Scene::run(|scene| async move {
        let mut client = scene.client(None).await?;
        let told = client.ask("probe without capabilities").await?;
        ensure!(
            told.contains("CAP_BPF") && told.contains("os error 1)"),
            "{told}"
        );
        Ok(())
    })
}

#[test]
fn connects_go_to_the_endpoint_and_see_the_service() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        set(&rewriter, scope, &[(A, 1)], &[(B6, 1)])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        for (service, name) in [(SERVICE, 'a'), (SERVICE_MAPPED, 'a'), (SERVICE6, 'b')] {
            let expected = format!("{name} {service}");
            client.expect(&format!("tcp {service}"), &expected).await?;
            // The source of the answer, then what getpeername says.
            let expected = format!("{name} {service} {service}");
            client.expect(&format!("udp {service}"), &expected).await?;
        }
        // What is no service stays what it is, and says so.
        client
            .expect(&format!("tcp {B}"), &format!("b {B}"))
            .await?;
        client.expect(&format!("tcp {A}"), &format!("a {A}")).await
    })
}

#[test]
fn weights_are_kept() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        set(&rewriter, scope, &[(A, 3), (B, 1)], &[])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        let names = client.ask(&format!("many 400 {SERVICE}")).await?;
        let share = names.chars().filter(|name| *name == 'a').count();
        // 300, with a standard deviation of 8.7: six of them to either side.
        ensure!(
            names.len() == 400 && (248..=352).contains(&share),
            "{share} of {names}"
        );
        let counted = |endpoint: &str| {
            let counters = rewriter.counters();
            let found = (counters.iter()).find(|counter| {
                let tcp = counter.service.protocol() == Protocol::Tcp;
                tcp && counter.endpoint == at(endpoint)
            });
            found.map(|counter| counter.connects)
        };
        ensure!(
            counted(A) == Some(share as u64),
            "{:?}",
            rewriter.counters()
        );
        ensure!(
            counted(B) == Some(400 - share as u64),
            "{:?}",
            rewriter.counters()
        );
        // Counts outlive the set, unless the endpoint leaves it.
        set(&rewriter, scope, &[(A, 1)], &[])?;
        client.expect(&format!("many 3 {SERVICE}"), "aaa").await?;
        ensure!(counted(A) == Some(share as u64 + 3) && counted(B).is_none());
        Ok(())
    })
}

#[test]
fn a_changed_set_is_for_the_next_connect() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        let mut client = scene.client(Some(&cgroup)).await?;
        let many = format!("many 10 {SERVICE}");
        client.expect(&many, "rrrrrrrrrr").await?;
        set(&rewriter, scope, &[(A, 1)], &[])?;
        client.expect(&many, "aaaaaaaaaa").await?;
        set(&rewriter, scope, &[(B, 1)], &[])?;
        client.expect(&many, "bbbbbbbbbb").await?;
        set(&rewriter, scope, &[(A, 1), (B, 0)], &[])?;
        client.expect(&many, "aaaaaaaaaa").await?;
        rewriter.remove(scope, key(Protocol::Tcp, SERVICE)?)?;
        client.expect(&many, "rrrrrrrrrr").await?;
        // The other protocol's service is another one.
        let udp = client.ask(&format!("udp {SERVICE}")).await?;
        ensure!(udp.starts_with("a "), "{udp}");
        Ok(())
    })
}

#[test]
fn nobody_sees_half_a_set() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        set(&rewriter, scope, &[(A, 1)], &[])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        let over = Arc::new(AtomicBool::new(false));
        let swapping = std::thread::spawn({
            let over = over.clone();
            move || swap_until(&over, &rewriter, scope)
        });
        let names = client.ask(&format!("many 1000 {SERVICE}")).await;
        over.store(true, Ordering::Relaxed);
        swapping.join().expect("it returns its errors")?;
        let names = names?;
        ensure!(
            names.len() == 1000 && names.chars().all(|name| "ab".contains(name)),
            "{names}"
        );
        Ok(())
    })
}

fn swap_until(over: &AtomicBool, rewriter: &Rewriter, scope: Scope) -> Result<()> {
    let (service, other) = (key(Protocol::Tcp, SERVICE)?, key(Protocol::Tcp, SERVICE6)?);
    let both = [(at(A), 1), (at(B), 2)];
    while !over.load(Ordering::Relaxed) {
        rewriter.set(scope, service, &both[1..])?;
        rewriter.set(scope, service, &both[..1])?;
        rewriter.set(scope, service, &both)?;
        // Places in the outer map are given to whoever comes next.
        rewriter.set(scope, other, &[(at(B6), 1)])?;
        rewriter.remove(scope, other)?;
    }
    Ok(())
}

#[test]
fn who_is_elsewhere_is_not_touched() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let (inside, outside) = (scene.cgroup("in")?, scene.cgroup("out")?);
        let (rewriter, scope) = attached(&inside)?;
        set(&rewriter, scope, &[(A, 1)], &[(A6, 1)])?;
        for cgroup in [Some(&outside), None] {
            let mut client = scene.client(cgroup).await?;
            for service in [SERVICE, SERVICE_MAPPED, SERVICE6] {
                let (tcp, udp) = (format!("tcp {service}"), format!("udp {service}"));
                client.expect(&tcp, &format!("r {service}")).await?;
                client
                    .expect(&udp, &format!("r {service} {service}"))
                    .await?;
            }
        }
        // A cgroup below is inside.
        let below = inside.below("deeper")?;
        let mut client = scene.client(Some(&below)).await?;
        client
            .expect(&format!("tcp {SERVICE}"), &format!("a {SERVICE}"))
            .await
    })
}

#[test]
fn two_scopes_have_the_same_address_for_different_services() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let (first, second) = (scene.cgroup("1")?, scene.cgroup("2")?);
        let (rewriter, one) = attached(&first)?;
        let two = Scope::of(second.path())?;
        rewriter.attach(second.path(), two)?;
        set(&rewriter, one, &[(A, 1)], &[(A6, 1)])?;
        let mut in_first = scene.client(Some(&first)).await?;
        let mut in_second = scene.client(Some(&second)).await?;
        // The one's services do not exist for the other.
        for service in [SERVICE, SERVICE6] {
            let many = format!("many 5 {service}");
            in_first.expect(&many, "aaaaa").await?;
            in_second.expect(&many, "rrrrr").await?;
        }
        set(&rewriter, two, &[(B, 1)], &[(B6, 1)])?;
        for service in [SERVICE, SERVICE6] {
            let (many, udp) = (format!("many 5 {service}"), format!("udp {service}"));
            in_first.expect(&many, "aaaaa").await?;
            in_second.expect(&many, "bbbbb").await?;
            in_first
                .expect(&udp, &format!("a {service} {service}"))
                .await?;
            in_second
                .expect(&udp, &format!("b {service} {service}"))
                .await?;
        }
        // A scope may be shared, and changed.
        rewriter.attach(second.path(), one)?;
        in_second
            .expect(&format!("many 5 {SERVICE}"), "aaaaa")
            .await
    })
}

#[test]
fn of_nested_cgroups_the_inner_one_counts() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let outer = scene.cgroup("x")?;
        let inner = outer.below("deeper")?;
        let (rewriter, around) = attached(&outer)?;
        let within = Scope::of(inner.path())?;
        rewriter.attach(inner.path(), within)?;
        set(&rewriter, around, &[(A, 1)], &[(A6, 1)])?;
        set(&rewriter, within, &[(B, 1)], &[])?;
        let mut client = scene.client(Some(&inner)).await?;
        let expected = [(SERVICE, 'b'), (SERVICE_MAPPED, 'b'), (SERVICE6, 'a')];
        for (service, name) in expected {
            let (tcp, udp) = (format!("tcp {service}"), format!("udp {service}"));
            client.expect(&tcp, &format!("{name} {service}")).await?;
            client
                .expect(&udp, &format!("{name} {service} {service}"))
                .await?;
        }
        Ok(())
    })
}

#[test]
fn two_paths_to_a_cgroup_are_one() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let name = cgroup.path().file_name().context("a name")?;
        let other = cgroup.path().join("..").join(name);
        let (rewriter, scope) = attached(&cgroup)?;
        rewriter.attach(&other, scope)?;
        set(&rewriter, scope, &[(A, 1)], &[])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        client
            .expect(&format!("udp {SERVICE}"), &format!("a {SERVICE} {SERVICE}"))
            .await?;
        ensure!(rewriter.detach(cgroup.path()));
        client
            .expect(&format!("tcp {SERVICE}"), &format!("a {SERVICE}"))
            .await?;
        ensure!(rewriter.detach(&other));
        client
            .expect(&format!("tcp {SERVICE}"), &format!("r {SERVICE}"))
            .await
    })
}

#[test]
fn nothing_is_left_after_detaching_dropping_or_dying() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let mut client = scene.client(Some(&cgroup)).await?;
        let (a, relayed) = (format!("a {SERVICE}"), format!("r {SERVICE}"));
        let tcp = format!("tcp {SERVICE}");

        let (rewriter, scope) = attached(&cgroup)?;
        set(&rewriter, scope, &[(A, 1)], &[])?;
        client.expect(&tcp, &a).await?;
        ensure!(rewriter.detach(cgroup.path()) && !rewriter.detach(cgroup.path()));
        client.until(&tcp, &relayed, &[&a]).await?;
        rewriter.attach(cgroup.path(), scope)?;
        client.expect(&tcp, &a).await?;
        drop(rewriter);
        client.until(&tcp, &relayed, &[&a]).await?;

        let mut owner = scene.client(None).await?;
        let own = format!("own {} {SERVICE} {A}", cgroup.path().display());
        owner.expect(&own, "owns").await?;
        client.expect(&tcp, &a).await?;
        owner.kill().await?;
        // The kernel may let go of a dead process's links a moment later.
        client.until(&tcp, &relayed, &[&a]).await
    })
}

#[test]
fn an_owner_may_be_followed_without_a_gap() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let mut client = scene.client(Some(&cgroup)).await?;
        let many = format!("many 20 {SERVICE}");
        let (old, scope) = attached(&cgroup)?;
        set(&old, scope, &[(A, 1)], &[])?;
        let (new, scope) = attached(&cgroup)?;
        set(&new, scope, &[(B, 1)], &[])?;
        client.expect(&many, &"a".repeat(20)).await?;
        drop(old);
        // The kernel may keep the old programs on for a moment; meanwhile either owner answers.
        let all_new = "b".repeat(20);
        let mut answers = client.ask(&many).await?;
        for _ in 0..1000 {
            if answers == all_new {
                break;
            }
            let known = answers.bytes().all(|answer| b"ab".contains(&answer));
            ensure!(known, "a gap: {answers}");
            answers = client.ask(&many).await?;
        }
        ensure!(answers == all_new, "the old owner stays: {answers}");
        client
            .expect(&format!("udp {SERVICE}"), &format!("b {SERVICE} {SERVICE}"))
            .await
    })
}

#[test]
fn a_cgroup_that_was_made_anew_is_attached_anew() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        drop(cgroup);
        let cgroup = scene.cgroup("x")?;
        ensure!(Scope::of(cgroup.path())? != scope);
        rewriter.attach(cgroup.path(), scope)?;
        set(&rewriter, scope, &[(A, 1)], &[])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        client
            .expect(&format!("tcp {SERVICE}"), &format!("a {SERVICE}"))
            .await?;
        let missing = cgroup.path().join("missing");
        let refused = rewriter.attach(&missing, scope);
        let refused = refused.err().context("there is none")?.to_string();
        ensure!(refused.contains("missing"), "{refused}");
        Ok(())
    })
}
