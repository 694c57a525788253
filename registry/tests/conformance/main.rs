//! One suite for both servers: what holds on a real etcd must hold on the embedded one, and the other way round.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Makes of each function two tests, one per server.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::backend::Backend::start(crate::backend::Kind::Embedded).await?).await
            })+
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::backend::Backend::start(crate::backend::Kind::Etcd).await?).await
            })+
        }
    };
}

/// As `on_both`, and of each function a third test, on a cluster of three etcds.
macro_rules! on_all {
    ($($test:ident),+ $(,)?) => {
        on_both!($($test),+);
        mod three_etcds {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::backend::Backend::start(crate::backend::Kind::ThreeEtcds).await?).await
            })+
        }
    };
}

mod backend;
mod beside;
mod claims;
mod cluster;
mod expiry;
mod histories;
mod kv;
mod leading;
mod lease;
mod linear;
mod mailbox;
mod migrate;
mod mirror;
mod old;
mod presence;
mod queue;
mod secure;
mod txn;
mod watch;
