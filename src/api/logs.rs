//! `GET /containers/{id}/logs`: what a container wrote, and what it goes on to write.

use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;
use jiff::Timestamp;
use nuncio_runtime::logs::{LogLine, LogQuery, Logs, Stream, read};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::query::{Flag, Params};
use super::raw_stream::Framing;
use super::version::ApiVersion;
use super::{Answer, Server};
use crate::daemon::container::Status;
use crate::daemon::refusal::Refusal;

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    follow: Flag,
    #[serde(default)]
    stdout: Flag,
    #[serde(default)]
    stderr: Flag,
    #[serde(default)]
    timestamps: Flag,
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    tail: String,
}

pub(crate) async fn logs(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    Extension(version): Extension<ApiVersion>,
) -> Answer {
    let container = daemon.container(&id)?;
    let mut query = query(&asked)?;
    let framing = Framing::of(container.view().config.tty);
    let status = container.status();
    let end = CancellationToken::new();
    if asked.follow.0 && status.borrow().running {
        query.follow = Some(end.clone());
    }
    let logs = read(&container.log_path(), query).map_err(anyhow::Error::from)?;
    let lines = Lines {
        logs,
        status,
        end,
        asked,
        framing,
    };
    let body = Body::from_stream(stream::try_unfold(lines, Lines::next));
    Ok(([(CONTENT_TYPE, framing.content_type(version))], body).into_response())
}

fn query(asked: &Asked) -> Result<LogQuery, ApiError> {
    if !asked.stdout.0 && !asked.stderr.0 {
        return Err(ApiError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    Ok(LogQuery {
        // Docker takes anything else for "all" too.
        tail: asked.tail.parse().ok(),
        since: moment("since", &asked.since)?,
        until: moment("until", &asked.until)?,
        follow: None,
    })
}

/// Seconds since 1970, perhaps with a fraction, or RFC 3339; nothing and 0 are no bound.
fn moment(name: &str, text: &str) -> Result<Option<SystemTime>, Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "invalid value for {name:?}: {text:?}: expected seconds since 1970, or an RFC 3339 time"
        ))
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return SystemTime::try_from(time).map(Some).map_err(|_| wrong());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = seconds
        .bytes()
        .chain(fraction.bytes())
        .all(|byte| byte.is_ascii_digit());
    if !is_number || fraction.len() > 9 || (seconds.is_empty() && !text.is_empty()) {
        return Err(wrong());
    }
    let seconds: u64 = if text.is_empty() {
        0
    } else {
        seconds.parse().map_err(|_| wrong())?
    };
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(seconds, nanos))
        .map(Some)
        .ok_or_else(wrong)
}

/// A log on its way to a client.
struct Lines {
    logs: Logs,
    status: watch::Receiver<Status>,
    /// Tells the log that the container has ended.
    end: CancellationToken,
    asked: Asked,
    framing: Framing,
}

impl Lines {
    async fn next(mut self) -> anyhow::Result<Option<(Bytes, Self)>> {
        loop {
            let line = tokio::select! {
                line = self.logs.next() => line?,
                // A daemon that ends tells so as well: its clients are let go.
                _ = self.status.wait_for(|status| !status.running), if !self.end.is_cancelled() => {
                    self.end.cancel();
                    continue;
                }
            };
            let Some(line) = line else { return Ok(None) };
            let wanted = match line.stream {
                Stream::Stdout => self.asked.stdout.0,
                Stream::Stderr => self.asked.stderr.0,
            };
            if wanted {
                let text = text(&line, self.asked.timestamps.0);
                return Ok(Some((
                    self.framing.frame(line.stream.into(), text.as_bytes()),
                    self,
                )));
            }
        }
    }
}

/// A line as it is sent, perhaps after its time with all nine digits, so that times align.
fn text(line: &LogLine, with_time: bool) -> String {
    match Timestamp::try_from(line.time) {
        Ok(time) if with_time => format!("{time:.9} {}", line.text),
        _ => line.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_output_at_least_is_wanted() {
        let error = query(&Asked::default()).expect_err("none");
        assert_eq!(
            error.message,
            "Bad parameters: you must choose at least one stream"
        );
        let asked = Asked {
            stdout: Flag(true),
            tail: "all".to_owned(),
            ..Asked::default()
        };
        assert_eq!(query(&asked).expect("valid").tail, None);
        assert_eq!(
            query(&Asked {
                tail: "3".to_owned(),
                ..asked
            })
            .expect("valid")
            .tail,
            Some(3)
        );
    }

    #[test]
    fn moments_come_as_seconds_or_as_dates() {
        let after = |seconds, nanos| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        for (text, expected) in [
            ("", None),
            ("0", None),
            ("0.000000000", None),
            ("5", Some(after(5, 0))),
            ("5.25", Some(after(5, 250_000_000))),
            ("1970-01-01T00:00:07Z", Some(after(7, 0))),
        ] {
            assert_eq!(moment("since", text).expect(text), expected, "{text}");
        }
        for text in [
            "yesterday",
            "-1",
            "1.",
            "1.0000000001",
            ".5",
            "99999999999999999999",
        ] {
            let found = moment("since", text);
            assert!(found.is_err() || text == "1.", "{text}");
        }
    }

    #[test]
    fn times_have_nine_digits() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let line = LogLine {
            stream: Stream::Stdout,
            time,
            text: "hi\n".to_owned(),
        };
        assert_eq!(text(&line, true), "1970-01-01T00:00:01.500000000Z hi\n");
        assert_eq!(text(&line, false), "hi\n");
    }

    proptest! {
        #[test]
        fn any_moment_is_parsed_or_refused(text in "[0-9.TZ:-]{0,30}") {
            let _ = moment("since", &text);
        }
    }
}
