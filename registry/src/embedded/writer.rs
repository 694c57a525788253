//! The one thread that writes. What waits while it commits goes into its next commit together.

use std::sync::Arc;
use std::thread;

use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use tracing::error;

use super::apply::{Batch, History};
use super::store::Refusal;

/// Requests that may wait; more of them wait in their callers.
const QUEUE: usize = 1024;
/// Requests in one commit.
const BATCH: usize = 256;

/// Tells a caller what became of its request, once the commit is known to have succeeded or not.
type Reply = Box<dyn FnOnce(Result<(), Status>) + Send>;
/// A request: applied to the batch, it leaves its reply. `Err` is a storage failure that undoes the batch.
type Job = Box<dyn FnOnce(&mut Batch<'_>) -> (Reply, Result<(), redb::Error>) + Send>;

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// Starts the thread, which ends when the last clone of this is dropped. When it has let go of the
    /// database, the receiver is told.
    pub(super) fn start(
        database: Arc<Database>,
        publish: watch::Sender<i64>,
    ) -> Result<(Self, oneshot::Receiver<()>), redb::Error> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        let history = History::measure(&database)?;
        thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || {
                write(&database, queue, &publish, history);
                drop(database);
                let _ = ended.send(()); // nobody may care
            })
            .map_err(redb::Error::Io)?;
        Ok((Self(jobs), end))
    }

    pub(super) async fn run<R: Send + 'static>(
        &self,
        op: impl FnOnce(&mut Batch<'_>) -> Result<R, Refusal> + Send + 'static,
    ) -> Result<R, Status> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |batch| {
            let (outcome, storage) = match op(batch) {
                Ok(done) => (Ok(done), Ok(())),
                Err(Refusal::Status(status)) => (Err(status), Ok(())),
                Err(Refusal::Storage(error)) => {
                    let refused = Status::unavailable(format!("the store failed: {error}"));
                    (Err(refused), Err(error))
                }
            };
            let reply: Reply = Box::new(move |committed: Result<(), Status>| {
                // A caller that has gone away does not want to know.
                let _ = answer.send(committed.and(outcome));
            });
            (reply, storage)
        });
        let stopped =
            || Status::unavailable("the embedded registry is stopping, or its store failed");
        self.0.send(job).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }
}

fn write(
    database: &Database,
    mut queue: mpsc::Receiver<Job>,
    publish: &watch::Sender<i64>,
    mut history: History,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < BATCH {
            let Ok(next) = queue.try_recv() else { break };
            jobs.push(next);
        }
        let mut replies = Vec::with_capacity(jobs.len());
        let committed = database
            .begin_write()
            .map_err(redb::Error::from)
            .and_then(|transaction| commit(transaction, jobs, &mut replies, &history));
        let verdict = match committed {
            Ok(Some((revision, next))) => {
                history = next;
                // Before the replies: whoever reads after an answer finds the revision told.
                publish.send_replace(revision);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                error!(%error, "commit failed, nothing of the batch was written");
                Err(Status::unavailable(format!("the store failed: {error}")))
            }
        };
        for reply in replies {
            reply(verdict.clone());
        }
    }
}

fn commit(
    transaction: WriteTransaction,
    jobs: Vec<Job>,
    replies: &mut Vec<Reply>,
    history: &History,
) -> Result<Option<(i64, History)>, redb::Error> {
    let result = {
        let mut batch = Batch::open(&transaction, history.clone())?;
        let mut failure = None;
        for job in jobs {
            let (reply, storage) = job(&mut batch);
            replies.push(reply);
            if let Err(error) = storage {
                failure = Some(error);
                break; // the jobs left are dropped, which tells their callers
            }
        }
        match failure {
            Some(error) => Err(error),
            None => batch.finish(),
        }
    };
    match result {
        Ok(Some(done)) => {
            transaction.commit()?;
            Ok(Some(done))
        }
        unchanged_or_failed => {
            transaction.abort()?;
            unchanged_or_failed
        }
    }
}
