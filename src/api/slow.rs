//! Answers without an end, and their readers: one that takes nothing for too long is let go, and holds up nobody meanwhile.
//!
//! What is sent passes through a short queue. While that is full nothing more is made for the reader. Once its time is over the
//! source is given up; what waits is still there to be read, and after it why there is no more. A reader that does not take that
//! either, for ten times as long, has its connection cut.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::extract::connect_info::ConnectInfo;
use axum::http::request::Parts;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::daemon::api_connection::Caller;
use crate::daemon::container::locked;
use crate::daemon::events::Kind;

/// Lines that wait for a reader.
const WAITING: usize = 64;

/// Who reads an answer.
pub(crate) struct Reader {
    daemon: Arc<Daemon>,
    caller: Option<Caller>,
}

impl FromRequestParts<Arc<Daemon>> for Reader {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        daemon: &Arc<Daemon>,
    ) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<ConnectInfo<Caller>>();
        Ok(Self {
            daemon: Arc::clone(daemon),
            caller: caller.map(|ConnectInfo(caller)| caller.clone()),
        })
    }
}

/// A line that says why there is no more, for what is a JSON document a line.
pub(crate) fn json_line(why: &str) -> Bytes {
    format!("{}\n", json!({ "error": why })).into()
}

/// The reader is behind by so many lines that it cannot be told what it missed.
#[derive(Debug, thiserror::Error)]
#[error("{0} events were missed, as they were not read in time")]
pub(crate) struct Missed(pub(crate) u64);

/// Why there is no more, though there would be.
enum End {
    Slow(String),
    Failed(String),
}

impl Reader {
    /// A body of what `source` has to say of `what`; `last` puts into its form why there is no more.
    pub(crate) fn body<S>(
        self,
        what: String,
        source: S,
        last: impl FnOnce(&str) -> Bytes + Send + 'static,
    ) -> Body
    where
        S: Stream<Item = anyhow::Result<Bytes>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(WAITING);
        let gone = CancellationToken::new();
        let reading = gone.clone().drop_guard();
        let ending = Arc::new(Mutex::new(None));
        let ended = Arc::clone(&ending);
        tokio::spawn(async move {
            let end = self.feed(&what, source, &sender).await;
            if let Some(End::Slow(why) | End::Failed(why)) = &end {
                *locked(&ending) = Some(last(why));
            }
            drop(sender); // what waits is the last but for that
            if let Some(End::Slow(why)) = end {
                self.let_go(what, why, gone).await;
            }
        });
        let last = stream::once(async move { locked(&ended).take() });
        let lines = ReceiverStream::new(receiver).map(Some).chain(last);
        let lines = lines.filter_map(async |line| line);
        Body::from_stream(lines.map(move |line| {
            let _reading = &reading;
            Ok::<_, std::convert::Infallible>(line)
        }))
    }

    /// Sends until there is no more, or nobody who reads; else why that ended before.
    async fn feed<S>(&self, what: &str, source: S, sender: &mpsc::Sender<Bytes>) -> Option<End>
    where
        S: Stream<Item = anyhow::Result<Bytes>>,
    {
        let patience = self.daemon.options.reader_patience;
        let mut source = pin!(source);
        loop {
            let next = tokio::select! {
                next = source.next() => next?,
                () = sender.closed() => return None,
            };
            let line = match next {
                Ok(line) => line,
                Err(error) if error.is::<Missed>() => {
                    return Some(End::Slow(format!("{what}: {error}")));
                }
                Err(error) => return Some(End::Failed(format!("{what}: {error:#}"))),
            };
            match timeout(patience, sender.send(line)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => {
                    return Some(End::Slow(format!(
                        "{what}: nothing was read for {patience:?}, so no more is told"
                    )));
                }
            }
        }
    }

    /// Tells of it, and cuts the connection if what waits is not read either.
    async fn let_go(self, what: String, why: String, gone: CancellationToken) {
        let Self { daemon, caller } = self;
        let peer = caller
            .as_ref()
            .map_or_else(String::new, |caller| json!(caller.peer).to_string());
        tracing::warn!(peer, why, "a reader did not keep up and is let go");
        let about = [("name", what.clone()), ("cause", why), ("reader", peer)];
        let about = about.map(|(name, value)| (name.to_owned(), value));
        let own = daemon.node.id.clone();
        daemon
            .events
            .tell(Kind::Daemon, "reader_dropped", own, about);
        let patience = daemon.options.reader_patience * 10;
        drop(daemon);
        if let Some(caller) = caller
            && timeout(patience, gone.cancelled()).await.is_err()
        {
            tracing::warn!(
                what,
                "a reader that was let go has read nothing since, and is cut off"
            );
            caller.cut.cancel();
        }
    }
}
