//! Questions from one host to another, by way of the registry: hosts have no other way to speak to each other.
//!
//! A question lies under `asks/<host>/<id>` and its answer under `answers/<id>`, both on a lease of the asker's, so that
//! neither outlives its time whoever dies. A host watches its own questions only.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, EventType, LeaseGrantOptions, PutOptions, TxnOp, WatchOptions,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::backoff::Backoff;
use crate::client::{CallError, Registry, cause, prefix_end};
use crate::keys::{ANSWERS, ASKS, BadName, check_name};

/// How long a question and its answer lie there at most.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// Bytes of a question, and of an answer; longer ones are not taken.
const LONGEST_QUESTION: usize = 4 << 10;
const LONGEST_ANSWER: usize = 64 << 10;
/// Questions that a host answers at once; of more it does not hear.
const AT_ONCE: usize = 4;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The other host did not answer.
    #[error(
        "host {node} did not answer within {after:?}: its daemon is dead, stuck, or too old to"
    )]
    Silent {
        /// Identifier of the host.
        node: String,
        /// The time allowed.
        after: Duration,
    },
    /// It is too long.
    #[error("a question of {0} bytes: it may have {LONGEST_QUESTION}")]
    TooLong(usize),
    /// The host's identifier cannot be part of a key.
    #[error(transparent)]
    Invalid(#[from] BadName),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Registry {
    /// Puts `question` to the host `node`, and waits at most `limit` for its answer.
    ///
    /// # Errors
    ///
    /// [`AskError::Silent`] if none comes in time.
    pub async fn ask(
        &self,
        node: &str,
        question: &str,
        limit: Duration,
    ) -> Result<String, AskError> {
        check_name(node)?;
        if question.len() > LONGEST_QUESTION {
            return Err(AskError::TooLong(question.len()));
        }
        let asked = timeout(limit, self.ask_on_lease(node, question)).await;
        asked.unwrap_or_else(|_| {
            let node = node.to_owned();
            Err(AskError::Silent { node, after: limit })
        })
    }

    async fn ask_on_lease(&self, node: &str, question: &str) -> Result<String, AskError> {
        const OPERATION: &str = "ask another host";
        let mut leases = self.client().lease_client();
        let seconds = i64::try_from(LEASE_TTL.as_secs()).unwrap_or(i64::MAX);
        let grant = leases.grant(seconds, Some(LeaseGrantOptions::new()));
        let lease = self.call("grant lease", grant).await?.id();
        let id = format!("{lease:x}");
        let answer_key = format!("{ANSWERS}{id}");
        let mut kv = self.client().kv_client();
        let put = PutOptions::new().with_lease(lease);
        let put = kv.put(format!("{ASKS}{node}/{id}"), question, Some(put));
        let asked = self.call(OPERATION, put).await?;
        let asked = asked
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        let since = WatchOptions::new().with_start_revision(asked);
        let mut watch = self.client().watch_client();
        let mut answers = self
            .call(OPERATION, watch.watch(answer_key, Some(since)))
            .await?;
        let answer = loop {
            let source = |error| CallError::Rpc {
                operation: OPERATION,
                source: cause(error),
            };
            let message = answers.message().await.map_err(source)?;
            let Some(message) = message.filter(|message| !message.canceled()) else {
                let source = "the watch has ended".into();
                return Err(CallError::Rpc {
                    operation: OPERATION,
                    source,
                }
                .into());
            };
            let put = message
                .events()
                .iter()
                .find(|event| event.event_type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv()) {
                break String::from_utf8_lossy(kv.value()).into_owned();
            }
        };
        // Else it ends by itself.
        let _ = self.call("revoke lease", leases.revoke(lease)).await;
        Ok(answer)
    }

    /// Answers the questions put to the host `node`, for as long as this is polled.
    pub async fn answer<F>(&self, node: &str, answer: impl Fn(String) -> F)
    where
        F: Future<Output = String> + Send + 'static,
    {
        let mut backoff = Backoff::outage();
        loop {
            if let Err(error) = self.answer_once(node, &answer, &mut backoff).await {
                let error: &(dyn std::error::Error + 'static) = &error;
                warn!(error, "hear of other hosts' questions");
                self.doubt();
            }
            backoff.wait().await;
        }
    }

    async fn answer_once<F>(
        &self,
        node: &str,
        answer: &impl Fn(String) -> F,
        backoff: &mut Backoff,
    ) -> Result<(), CallError>
    where
        F: Future<Output = String> + Send + 'static,
    {
        const OPERATION: &str = "watch for questions";
        let prefix = format!("{ASKS}{node}/");
        let options = WatchOptions::new().with_range(prefix_end(&prefix));
        let mut client = self.client().watch_client();
        let mut asks = self
            .call(OPERATION, client.watch(prefix.clone(), Some(options)))
            .await?;
        backoff.reset();
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut answering = JoinSet::new();
        loop {
            let source = |error| CallError::Rpc {
                operation: OPERATION,
                source: cause(error),
            };
            let message = tokio::select! {
                message = asks.message() => message.map_err(source)?,
                Some(_) = answering.join_next() => continue,
            };
            let Some(message) = message.filter(|message| !message.canceled()) else {
                return Ok(());
            };
            for kv in message
                .events()
                .iter()
                .filter(|event| event.event_type() == EventType::Put)
                .filter_map(|event| event.kv())
            {
                let key = String::from_utf8_lossy(kv.key()).into_owned();
                let id = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                    warn!(id, "more questions at once than are answered");
                    continue;
                };
                if kv.value().len() > LONGEST_QUESTION || check_name(&id).is_err() {
                    continue;
                }
                let answer = answer(String::from_utf8_lossy(kv.value()).into_owned());
                let (registry, lease) = (self.clone(), kv.lease());
                answering.spawn(async move {
                    let _place = place;
                    let said = timeout(LEASE_TTL, answer).await;
                    let Some(said) = said.ok().filter(|said| said.len() <= LONGEST_ANSWER) else {
                        warn!(key, "no answer in time, or one that is too long");
                        return;
                    };
                    if let Err(error) = registry.put_answer(&key, &id, lease, said).await {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        warn!(error, key, "answer another host");
                    }
                });
            }
        }
    }

    /// Only while the question still lies there, whose lease is the answer's too.
    async fn put_answer(
        &self,
        ask: &str,
        id: &str,
        lease: i64,
        answer: String,
    ) -> Result<(), CallError> {
        let asked = Compare::create_revision(ask, CompareOp::Greater, 0);
        let put = PutOptions::new().with_lease(lease);
        let put = TxnOp::put(format!("{ANSWERS}{id}"), answer, Some(put));
        self.txn("answer another host", vec![asked], vec![put])
            .await
            .map(drop)
    }
}
