//! `GET /nuncio/v1/containers/{id}/logs`: a log as a JSON document a line, with each line's time and stream, however the
//! container prints.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;
use jiff::Timestamp;
use nuncio_runtime::logs::{LogLine, Stream};
use serde_json::json;

use super::logs::{Asked, Lines};
use super::query::Params;
use super::slow::{Reader, json_line};
use super::{Answer, Server};

pub(crate) async fn logs(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    reader: Reader,
) -> Answer {
    let container = daemon.container(&id)?;
    let follows = asked.follow.0;
    let lines = Lines::open(&container, asked)?;
    let lines = Box::pin(stream::try_unfold(lines, async |mut lines: Lines| {
        let line = lines.next().await?;
        anyhow::Ok(line.map(|line| (document(&line), lines)))
    }));
    let body = match follows {
        true => reader.body(format!("logs of {}", container.name()), lines, json_line),
        false => Body::from_stream(lines),
    };
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The text with its end of line, which a piece of a long line has not.
pub(super) fn document(line: &LogLine) -> Bytes {
    let time = Timestamp::try_from(line.time).unwrap_or_default();
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let document = json!({ "time": format!("{time:.9}"), "stream": stream, "text": line.text });
    format!("{document}\n").into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_line_is_a_document() {
        let line = LogLine {
            stream: Stream::Stderr,
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            text: "hi\n".to_owned(),
        };
        let expected =
            r#"{"time":"1970-01-01T00:00:01.500000000Z","stream":"stderr","text":"hi\n"}"#;
        assert_eq!(document(&line), format!("{expected}\n").as_bytes());
    }
}
