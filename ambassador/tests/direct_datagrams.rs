//! Datagrams that the kernel sends straight to an endpoint, from sockets without a peer.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use nuncio_ambassador::Protocol;

#[path = "support/scene.rs"]
mod scene;
use scene::*;

#[test]
fn a_socket_without_a_peer_keeps_its_endpoint_while_it_is_there() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.relay()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        let mut client = scene.client(Some(&cgroup)).await?;
        for (local, service) in [
            ("0.0.0.0:0", SERVICE),
            ("[::]:0", SERVICE_MAPPED),
            ("[::]:0", SERVICE6),
        ] {
            let (a, b) = (format!("a {service}"), format!("b {service}"));
            let (relay, send) = (format!("r {service}"), format!("send {service}"));
            set(&rewriter, scope, &[(A, 1), (B, 1)], &[(A6, 1), (B6, 1)])?;
            client.expect(&format!("open {local}"), "open").await?;
            let first = client.ask(&send).await?;
            ensure!(first == a || first == b, "{first}");
            for _ in 0..30 {
                client.expect(&send, &first).await?;
            }
            // One that is being drained is still there.
            let (other, weights) = if first == a {
                (&b, (0, 1))
            } else {
                (&a, (1, 0))
            };
            let (four, six) = (
                [(A, weights.0), (B, weights.1)],
                [(A6, weights.0), (B6, weights.1)],
            );
            set(&rewriter, scope, &four, &six)?;
            client.expect(&send, &first).await?;
            // One that has left is not, and what came in its place stays when it is back.
            let gone = |set: [(&'static str, u16); 2]| set.into_iter().filter(|e| e.1 == 1);
            let (four, six): (Vec<_>, Vec<_>) = (gone(four).collect(), gone(six).collect());
            set(&rewriter, scope, &four, &six)?;
            client.expect(&send, other).await?;
            set(&rewriter, scope, &[(A, 1), (B, 1)], &[(A6, 1), (B6, 1)])?;
            for _ in 0..30 {
                client.expect(&send, other).await?;
            }
            // Without endpoints it is what it would be anyway.
            set(&rewriter, scope, &[], &[])?;
            client.expect(&send, &relay).await?;
        }
        Ok(())
    })
}

#[test]
fn a_datagram_socket_may_change_its_peer() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        set(&rewriter, scope, &[(A, 1)], &[])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        client.expect("open 0.0.0.0:0", "open").await?;
        client
            .expect(&format!("connect {SERVICE}"), SERVICE)
            .await?;
        // The very endpoint, but by its own name.
        client.expect(&format!("connect {A}"), A).await?;
        client.expect(&format!("connect {SERVICE}"), SERVICE).await
    })
}

#[test]
fn a_set_of_the_largest_size_is_searched_to_its_ends() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        let mut client = scene.client(Some(&cgroup)).await?;
        // Those that must not be chosen would not answer: nobody has their addresses.
        let idle = (0..4095_u16).map(|n| (([10, 91, 0, 1], n + 1).into(), 0));
        let idle: Vec<(SocketAddr, u16)> = idle.collect();
        for place in [0, 1, 2047, 2048, 4094, 4095] {
            let mut all = idle.clone();
            all.insert(place, (at(A), 1));
            // From nothing, so that numbers are in the order of addresses.
            rewriter.remove(scope, key(Protocol::Udp, SERVICE)?)?;
            for upto in [place + 1, all.len()] {
                rewriter.set(scope, key(Protocol::Udp, SERVICE)?, &all[..upto])?;
                client.expect("open 0.0.0.0:0", "open").await?;
                for _ in 0..3 {
                    client
                        .expect(&format!("send {SERVICE}"), &format!("a {SERVICE}"))
                        .await?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_socket_on_loopback_is_left_to_the_relay() -> Result<()> {
    Scene::run(|scene| async move {
        scene.servers()?;
        scene.serve("c", "127.0.0.1:8080", b'r')?;
        scene.serve("c", "[::1]:8080", b'r')?;
        let cgroup = scene.cgroup("x")?;
        let (rewriter, scope) = attached(&cgroup)?;
        let four = key(Protocol::Udp, "127.0.0.1:8080")?;
        let six = key(Protocol::Udp, "[::1]:8080")?;
        rewriter.set(scope, four, &[(at(A), 1)])?;
        rewriter.set(scope, six, &[(at(A6), 1)])?;
        let mut client = scene.client(Some(&cgroup)).await?;
        for (local, service, expected) in [
            ("0.0.0.0:0", "127.0.0.1:8080", 'a'),
            ("127.0.0.1:0", "127.0.0.1:8080", 'r'),
            ("[::]:0", "[::1]:8080", 'a'),
            ("[::1]:0", "[::1]:8080", 'r'),
            ("[::ffff:127.0.0.1]:0", "[::ffff:127.0.0.1]:8080", 'r'),
        ] {
            client.expect(&format!("open {local}"), "open").await?;
            let expected = format!("{expected} {service}");
            client.expect(&format!("send {service}"), &expected).await?;
        }
        Ok(())
    })
}
