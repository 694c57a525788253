//! The one thread that writes. What waits while it commits goes into its next commit together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use redb::WriteTransaction;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use tracing::{debug, error};

use super::apply::{Batch, Done, Size};
use super::disk::{self, Disk};
use super::recent::Recent;
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
pub(super) struct Writer {
    disk: Arc<Disk>, // before the queue, whose end is the thread's
    queue: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread, which ends when the last clone of this is dropped. When it has let go of the
    /// database, the receiver is told.
    pub(super) fn start(
        disk: Arc<Disk>,
        size: Size,
        (publish, recent): (watch::Sender<i64>, Arc<Recent>),
    ) -> Result<(Self, oneshot::Receiver<()>), redb::Error> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        let own = Arc::clone(&disk);
        thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || {
                write(&own, queue, (&publish, &recent), size);
                drop(own);
                let _ = ended.send(()); // nobody may care
            })
            .map_err(redb::Error::Io)?;
        Ok((Self { disk, queue: jobs }, end))
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
                Err(Refusal::Storage(error)) => (Err(disk::refusal(&error)), Err(error)),
            };
            let reply: Reply = Box::new(move |committed: Result<(), Status>| {
                // A caller that has gone away does not want to know.
                let _ = answer.send(committed.and(outcome));
            });
            (reply, storage)
        });
        let stopped = || match self.disk.is_full() {
            true => disk::no_space(),
            false => Status::unavailable("the embedded registry is stopping, or its store failed"),
        };
        self.queue.send(job).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }
}

fn write(
    disk: &Disk,
    mut queue: mpsc::Receiver<Job>,
    (publish, recent): (&watch::Sender<i64>, &Recent),
    mut size: Size,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = VecDeque::from([first]);
        while jobs.len() < BATCH {
            let Ok(next) = queue.try_recv() else { break };
            jobs.push_back(next);
        }
        if disk.refuses() {
            continue; // the jobs are dropped, which tells their callers
        }
        let mut replies = Vec::with_capacity(jobs.len());
        let committed = disk.with(|database| {
            let transaction = database.begin_write()?;
            Ok(commit(
                transaction,
                &mut jobs,
                &mut replies,
                (&size, disk.is_over()),
            )?)
        });
        let verdict = match committed {
            Ok(Some(done)) => {
                size = done.size;
                disk.note_size(size.total());
                recent.push(done.events, done.revision, done.compacted);
                disk.note(Ok(()));
                // Before the replies: whoever reads after an answer finds the revision told.
                publish.send_replace(done.revision);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(Refusal::Status(refused)) => Err(refused),
            Err(Refusal::Storage(error)) => {
                error!(%error, "commit failed, what waited for it is refused");
                disk.note(Err(&error));
                Err(disk::refusal(&error))
            }
        };
        for reply in replies {
            reply(verdict.clone());
        }
    }
}

fn commit(
    transaction: WriteTransaction,
    jobs: &mut VecDeque<Job>,
    replies: &mut Vec<Reply>,
    (size, full): (&Size, bool),
) -> Result<Option<Done>, redb::Error> {
    let result = {
        let mut batch = Batch::open(&transaction, size.clone(), full)?;
        let mut failure = None;
        while let Some(job) = jobs.pop_front() {
            let (reply, storage) = job(&mut batch);
            replies.push(reply);
            if let Err(error) = storage {
                failure = Some(error);
                break; // the jobs left are dropped by the caller, which tells theirs
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
            if let Err(error) = transaction.abort() {
                debug!(%error, "undo a batch"); // the next one finds the file opened anew
            }
            unchanged_or_failed
        }
    }
}
