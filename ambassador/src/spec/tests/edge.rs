//! Edges at random.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::any_host;
use crate::{AcceptProxy, ProxyVersion, TlsFiles, TlsSide};

fn any_network() -> impl Strategy<Value = ipnetwork::IpNetwork> {
    (any::<std::net::IpAddr>(), 0_u8..=32)
        .prop_map(|(address, prefix)| ipnetwork::IpNetwork::new(address, prefix).unwrap())
}

prop_compose! {
    pub(super) fn any_edge()(
        send_proxy in prop::option::of(prop::sample::select(vec![ProxyVersion::V1, ProxyVersion::V2])),
        from in prop::collection::vec(any_network(), 1..3),
        accepts: bool,
        timeout in 1_u64..10_000_000,
        sni in prop::collection::btree_map(
            "(\\*\\.)?[a-z]{1,9}(\\.[a-z]{1,9}){0,2}",
            prop_oneof![
                prop::collection::vec((any_host(), 1_u16..), 1..3).prop_map(|hosts| Target::Host(hosts.into_iter().map(Host::from).collect())),
                Just(Target::Service("some-service".to_owned(), None)),
            ],
            0..3,
        ),
        tls in prop::option::of((
            prop::sample::select(vec![TlsSide::Originate, TlsSide::Terminate]),
            "spiffe://[a-z]{1,9}/[a-zA-Z0-9_-]{1,9}/(\\*|[a-z]{1,9})",
        )),
        name in prop::option::of("[a-z]{1,9}\\.[a-z]{1,9}"),
    ) -> EdgeSpec {
        let timeout = Duration::from_millis(timeout);
        EdgeSpec {
            accept_proxy: accepts.then_some(AcceptProxy { from, timeout }),
            send_proxy,
            sni: sni.into_iter().map(|(n, t)| (n.parse().unwrap(), t)).collect(),
            tls: tls.map(|(side, allow)| TlsSpec {
                side,
                files: TlsFiles {
                    certificate: "/a/cert.pem".into(),
                    key: "/a/key.pem".into(),
                    bundle: "bundle.pem".into(),
                },
                allow: vec![allow.parse().unwrap(), "spiffe://mesh/*/x".parse().unwrap()],
                server_name: match side {
                    TlsSide::Originate => name.map(|name| name.try_into().unwrap()),
                    TlsSide::Terminate => None,
                },
            }),
        }
    }
}
