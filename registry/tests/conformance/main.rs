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

mod backend;
mod claims;
mod kv;
mod lease;
mod mailbox;
mod mirror;
mod presence;
mod queue;
mod txn;
mod watch;
