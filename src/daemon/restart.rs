//! Restart policies: which containers are started again when they have ended, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Daemon;
use super::config::RestartPolicy;
use super::container::Container;
use super::record::{Phase, Record};
use super::start::Starter;

/// The pause before the first restart; each one in a row is twice as long.
const SHORTEST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_mins(1);
/// A container that ran so long has not failed in a row.
const STABLE: Duration = Duration::from_secs(10);

/// The pause before a restart, after one of `last` (none: zero) and a run that took `ran`.
pub(super) fn pause(last: Duration, ran: Duration) -> Duration {
    if last.is_zero() || ran >= STABLE {
        SHORTEST
    } else {
        (last * 2).min(LONGEST)
    }
}

/// What becomes of a container that its policy cannot start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    /// It is given up: it ran a moment ago, so what is missing now will not come by itself.
    One,
    /// It is tried again. The host may just have come up, and what it needs may still come.
    Many,
}

impl RestartPolicy {
    /// Whether a container of that record, which has just ended with `code`, is to be started again.
    pub(super) fn wants_again(self, record: &Record, code: i32) -> bool {
        !record.stopped
            && match self {
                Self::No => false,
                Self::Always | Self::UnlessStopped => true,
                Self::OnFailure { retries } => {
                    code != 0 && (retries == 0 || record.restarts < retries)
                }
            }
    }

    /// Whether a container of that record, which had ended before this daemon began, is to be started by it.
    fn wants_with_daemon(self, record: &Record) -> bool {
        let ran = matches!(
            record.phase,
            Phase::Exited {
                started: Some(_),
                ..
            }
        );
        match self {
            Self::No | Self::OnFailure { .. } => false,
            Self::Always => ran,
            Self::UnlessStopped => ran && !record.stopped,
        }
    }
}

impl Daemon {
    /// Starts a container again after a pause, in a task of its own, unless it is stopped, started or removed before.
    pub(super) fn restart_later(
        self: &Arc<Self>,
        container: Arc<Container>,
        pause: Duration,
        patience: Patience,
    ) {
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            let mut pause = pause;
            while let Some(next) = daemon.restart_after(&container, pause, patience).await {
                pause = next;
            }
        });
    }

    /// One attempt; the pause before the next one if it failed and there is to be one.
    async fn restart_after(
        self: &Arc<Self>,
        container: &Arc<Container>,
        pause: Duration,
        patience: Patience,
    ) -> Option<Duration> {
        let mut status = container.status();
        let called_off = status.wait_for(|status| !status.restarting);
        if timeout(pause, called_off).await.is_ok() {
            return None;
        }
        let _turn = container.turn.lock().await;
        if !container.is_restarting() {
            return None;
        }
        let error = self.start_by(container, Starter::Policy).await.err()?;
        tracing::warn!(
            id = container.id,
            error = format!("{error:#}"),
            "restart a container"
        );
        match not_restarted(container, patience) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(
                    id = container.id,
                    error = format!("{error:#}"),
                    "note a failed restart"
                );
                None
            }
        }
    }

    /// Starts those that their policies want to run with the daemon, the oldest first; failing ones try on by
    /// themselves.
    pub(super) async fn start_with_daemon(self: &Arc<Self>) {
        for container in self.containers().into_iter().rev() {
            let record = container.view();
            if !record.config.host.restart.wants_with_daemon(&record) {
                continue;
            }
            let _turn = container.turn.lock().await;
            if container.is_running() || container.is_restarting() {
                continue; // somebody was faster
            }
            if let Err(error) = self.start_by(&container, Starter::Policy).await {
                tracing::warn!(
                    id = container.id,
                    error = format!("{error:#}"),
                    "start a container with the daemon"
                );
                if let Err(error) = container.update(|record| record.stopped = false) {
                    tracing::error!(
                        id = container.id,
                        error = format!("{error:#}"),
                        "write a record"
                    );
                    continue;
                }
                container.set_status(|status| status.restarting = true);
                self.restart_later(
                    Arc::clone(&container),
                    container.pause_after(Duration::ZERO),
                    Patience::Many,
                );
            }
        }
    }

    /// Calls a pending restart off; `false` if there is none.
    pub(super) async fn call_off(&self, container: &Container) -> anyhow::Result<bool> {
        if !container.is_restarting() {
            return Ok(false);
        }
        let _turn = container.turn.lock().await;
        if !container.is_restarting() {
            return Ok(false); // it runs by now
        }
        container.update(|record| {
            record.stopped = true;
            if let Phase::Restarting { code, .. } = record.phase {
                give_up(record, code, String::new());
            }
        })?;
        container.set_status(|status| status.restarting = false);
        Ok(true)
    }
}

/// Counts an attempt that failed; the pause before the next one, if there is to be one.
fn not_restarted(container: &Container, patience: Patience) -> anyhow::Result<Option<Duration>> {
    let (code, error) = {
        let status = container.status();
        let status = status.borrow();
        (status.code, status.error.clone())
    };
    let again = container.update(|record| {
        let again =
            patience == Patience::Many && record.config.host.restart.wants_again(record, code);
        if again {
            record.restarts += 1;
        } else {
            give_up(record, code, error);
        }
        again
    })?;
    if again {
        return Ok(Some(container.pause_after(Duration::ZERO)));
    }
    container.set_status(|status| status.restarting = false);
    Ok(None)
}

/// Makes a container that was to be started again one that has ended.
fn give_up(record: &mut Record, code: i32, error: String) {
    if let Phase::Restarting {
        started,
        finished,
        oom,
        ..
    } = record.phase
    {
        record.phase = Phase::Exited {
            code,
            started,
            finished,
            oom,
            error,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::test_record;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut last = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            last = pause(last, Duration::from_secs(1));
            pauses.push(last.as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9..], [51_200, 60_000, 60_000]);
        assert_eq!(pause(last, STABLE), SHORTEST);
    }

    #[test]
    fn policies_look_at_the_exit_code_the_request_and_the_count() {
        let record = |restarts, stopped| {
            let mut record = test_record(Phase::Created);
            (record.restarts, record.stopped) = (restarts, stopped);
            record
        };
        let thrice = RestartPolicy::OnFailure { retries: 3 };
        for (policy, restarts, stopped, code, expected) in [
            (RestartPolicy::No, 0, false, 1, false),
            (RestartPolicy::Always, 9, false, 0, true),
            (RestartPolicy::Always, 0, true, 137, false),
            (RestartPolicy::UnlessStopped, 0, false, 0, true),
            (thrice, 2, false, 1, true),
            (thrice, 3, false, 1, false),
            (thrice, 0, false, 0, false),
            (RestartPolicy::OnFailure { retries: 0 }, 99, false, 1, true),
        ] {
            let found = policy.wants_again(&record(restarts, stopped), code);
            assert_eq!(found, expected, "{policy:?} {restarts} {stopped} {code}");
        }
    }

    #[test]
    fn what_was_stopped_comes_back_with_the_daemon_only_if_it_is_always_to_run() {
        let exited = Phase::Exited {
            code: 137,
            started: Some(jiff::Timestamp::UNIX_EPOCH),
            finished: jiff::Timestamp::UNIX_EPOCH,
            oom: false,
            error: String::new(),
        };
        let mut record = test_record(exited);
        record.stopped = true;
        assert!(RestartPolicy::Always.wants_with_daemon(&record));
        assert!(!RestartPolicy::UnlessStopped.wants_with_daemon(&record));
        record.stopped = false;
        assert!(RestartPolicy::UnlessStopped.wants_with_daemon(&record));
        assert!(!RestartPolicy::OnFailure { retries: 0 }.wants_with_daemon(&record));
        record.phase = Phase::Created;
        assert!(!RestartPolicy::Always.wants_with_daemon(&record));
    }
}
