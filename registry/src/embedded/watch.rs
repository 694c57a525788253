//! The Watch service: one task per stream, which reads the history as far as it is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::pb::etcdserverpb::watch_request::RequestUnion;
use super::pb::etcdserverpb::watch_server::Watch;
use super::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use super::store::{Compacted, Store};
use super::watcher::Watcher;

/// Responses on their way to the client; when it does not take them, the stream stays where it is in the
/// history.
const IN_FLIGHT: usize = 8;
/// Watchers on one stream.
const MOST_WATCHERS: usize = 1024;
/// How often a watcher that asked for it is told that nothing happened, as etcd does.
const PROGRESS: Duration = Duration::from_secs(600);
/// The watcher that answers to progress requests name, as etcd's.
const NO_WATCHER: i64 = -1;

/// The service.
pub(super) struct WatchService {
    pub(super) store: Store,
    pub(super) stop: CancellationToken,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, stream) = mpsc::channel(IN_FLIGHT);
        let session = Session {
            revision: self.store.revision(),
            store: self.store.clone(),
            watchers: BTreeMap::new(),
            next_id: 0,
            responses,
        };
        tokio::spawn(session.run(request.into_inner(), self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The client no longer takes responses.
struct Gone;

/// One stream.
struct Session {
    store: Store,
    revision: watch::Receiver<i64>,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    responses: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, stop: CancellationToken) {
        let mut progress = tokio::time::interval(PROGRESS);
        progress.reset();
        loop {
            let step = tokio::select! {
                () = stop.cancelled() => {
                    let stopping = Status::unavailable("the embedded registry is stopping");
                    let _ = self.responses.try_send(Err(stopping)); // the end of the stream tells as much
                    break;
                }
                () = self.responses.closed() => break,
                request = requests.message() => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) | Err(_) => break,
                },
                Ok(()) = self.revision.changed() => self.deliver().await.map(drop),
                _ = progress.tick() => self.tell_progress().await,
            };
            if step.is_err() {
                break;
            }
        }
    }

    async fn send(&self, revision: i64, response: WatchResponse) -> Result<(), Gone> {
        let header = Some(self.store.header(revision));
        let response = WatchResponse { header, ..response };
        self.responses.send(Ok(response)).await.map_err(|_| Gone)
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                match self.watchers.remove(&cancel.watch_id) {
                    Some(watcher) => self.cancel(watcher.id, String::new(), 0).await,
                    None => Ok(()),
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                // Only once everything up to that revision was told may it be announced.
                let revision = self.deliver().await?;
                let watch_id = NO_WATCHER;
                self.send(
                    revision,
                    WatchResponse {
                        watch_id,
                        ..WatchResponse::default()
                    },
                )
                .await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: &WatchCreateRequest) -> Result<(), Gone> {
        let revision = *self.revision.borrow();
        let taken = self.watchers.contains_key(&request.watch_id);
        let refusal = if request.watch_id != 0 && taken {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watchers.len() >= MOST_WATCHERS {
            Some("too many watchers on one stream, open another")
        } else {
            None
        };
        let id = match request.watch_id {
            _ if refusal.is_some() => NO_WATCHER,
            0 => self.free_id(),
            id => id,
        };
        let created = WatchResponse {
            watch_id: id,
            created: true,
            canceled: refusal.is_some(),
            cancel_reason: refusal.unwrap_or_default().to_owned(),
            ..WatchResponse::default()
        };
        self.send(revision, created).await?;
        if refusal.is_some() {
            return Ok(());
        }
        self.watchers
            .insert(id, Watcher::new(id, request, revision));
        self.deliver().await.map(drop)
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn cancel(&self, watch_id: i64, reason: String, compacted: i64) -> Result<(), Gone> {
        let response = WatchResponse {
            watch_id,
            canceled: true,
            cancel_reason: reason,
            compact_revision: compacted,
            ..WatchResponse::default()
        };
        let revision = *self.revision.borrow();
        self.send(revision, response).await
    }

    /// Tells all watchers all that is committed, and returns the revision reached.
    async fn deliver(&mut self) -> Result<i64, Gone> {
        loop {
            let committed = *self.revision.borrow_and_update();
            let behind = self.watchers.values().map(|watcher| watcher.next).min();
            let Some(from) = behind.filter(|&next| next <= committed) else {
                return Ok(committed);
            };
            match self.store.history(from).await {
                Ok(Ok(page)) => {
                    let responses: Vec<WatchResponse> = self
                        .watchers
                        .values_mut()
                        .flat_map(|watcher| watcher.take(&page.events, page.upto))
                        .collect();
                    for response in responses {
                        self.send(page.upto, response).await?;
                    }
                }
                Ok(Err(Compacted(first))) => {
                    let too_late = |_: &i64, watcher: &mut Watcher| watcher.next < first;
                    let lost: Vec<i64> = self
                        .watchers
                        .extract_if(.., too_late)
                        .map(|(id, _)| id)
                        .collect();
                    for id in lost {
                        let reason = "etcdserver: mvcc: required revision has been compacted";
                        self.cancel(id, reason.to_owned(), first).await?;
                    }
                }
                Err(status) => {
                    let _ = self.responses.send(Err(status)).await; // the stream ends in any case
                    return Err(Gone);
                }
            }
        }
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let revision = self.deliver().await?;
        for watcher in self.watchers.values().filter(|watcher| watcher.progress) {
            let watch_id = watcher.id;
            self.send(
                revision,
                WatchResponse {
                    watch_id,
                    ..WatchResponse::default()
                },
            )
            .await?;
        }
        Ok(())
    }
}
