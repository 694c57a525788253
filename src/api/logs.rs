//! `GET /containers/{id}/logs`: what a container wrote, and what it goes on to write.

use axum::Extension;
use axum::body::Body;
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
use super::query::{Flag, Params, moment};
use super::raw_stream::{Channel, Framing};
use super::slow::Reader;
use super::version::ApiVersion;
use super::{Answer, Server};
use crate::daemon::container::{Container, Status};
use crate::daemon::refusal::Refusal;

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    pub(super) follow: Flag,
    #[serde(default)]
    pub(super) stdout: Flag,
    #[serde(default)]
    pub(super) stderr: Flag,
    #[serde(default)]
    pub(super) timestamps: Flag,
    #[serde(default)]
    pub(super) details: Flag,
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
    reader: Reader,
) -> Answer {
    let container = daemon.container(&id)?;
    let framing = Framing::of(container.view().config.tty);
    let (timestamps, details) = (asked.timestamps.0, asked.details.0);
    let follows = asked.follow.0;
    let lines = Lines::open(&container, asked)?;
    let frames = stream::try_unfold(lines, move |mut lines: Lines| async move {
        let line = lines.next().await?;
        anyhow::Ok(line.map(|line| {
            let text = text(&line, timestamps, details);
            let frame = framing.frame(line.stream.into(), text.as_bytes());
            (frame, lines)
        }))
    });
    let body = match follows {
        true => {
            let what = format!("logs of {}", container.name());
            let last = move |why: &str| match framing {
                Framing::Multiplexed => framing.frame(Channel::Error, why.as_bytes()),
                Framing::Raw => format!("{why}\n").into(),
            };
            reader.body(what, Box::pin(frames), last)
        }
        // Who pages through what has an end may take as long as that takes: it costs nothing meanwhile.
        false => Body::from_stream(Box::pin(frames)),
    };
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

/// A log on its way to a client.
pub(super) struct Lines {
    logs: Logs,
    status: watch::Receiver<Status>,
    /// Tells the log that the container has ended.
    end: CancellationToken,
    asked: Asked,
}

impl Lines {
    /// # Errors
    ///
    /// If the container's log is not kept, or nothing of it is asked for.
    pub(super) fn open(container: &Container, asked: Asked) -> Result<Self, ApiError> {
        let mut query = query(&asked)?;
        if container.view().config.host.no_log {
            let message = "configured logging driver does not support reading";
            return Err(Refusal::unsupported(message).into());
        }
        let status = container.status();
        let end = CancellationToken::new();
        if asked.follow.0 && status.borrow().running {
            query.follow = Some(end.clone());
        }
        let logs = read(&container.log_path(), query).map_err(anyhow::Error::from)?;
        Ok(Self {
            logs,
            status,
            end,
            asked,
        })
    }

    /// The next line of those streams that are asked for.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<LogLine>> {
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
                return Ok(Some(line));
            }
        }
    }
}

/// A line as it is sent, perhaps after its time with all nine digits, so that times align, and after what a container
/// can have noted with it, which is nothing here.
fn text(line: &LogLine, with_time: bool, with_details: bool) -> String {
    let details = if with_details { " " } else { "" };
    match Timestamp::try_from(line.time) {
        Ok(time) if with_time => format!("{time:.9} {details}{}", line.text),
        _ => format!("{details}{}", line.text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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
    fn times_have_nine_digits() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let line = LogLine {
            stream: Stream::Stdout,
            time,
            text: "hi\n".to_owned(),
        };
        assert_eq!(
            text(&line, true, false),
            "1970-01-01T00:00:01.500000000Z hi\n"
        );
        assert_eq!(text(&line, false, false), "hi\n");
        assert_eq!(text(&line, false, true), " hi\n");
    }
}
