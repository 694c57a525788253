//! The host's ambassador: a process of its own, which the daemon starts, finds again and tells what to carry.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use nuncio_ambassador::{ForwardSpec, spec};
use nuncio_overlay::{NameStats, NamesDocument};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::host_process::HostProcess;
use super::refusal::Refusal;

/// How long one request may take; binding a thousand listeners is far below it.
const REQUEST: Duration = Duration::from_secs(10);

/// How long it may take to say how things are, to who can do without.
const QUESTION: Duration = Duration::from_secs(3);

/// Bytes of a line that it says.
const LONGEST_LINE: usize = 64 << 10;

/// The way to the host's ambassador. It holds no state: each call says everything.
pub(crate) struct AmbassadorProcess {
    process: HostProcess,
}

impl AmbassadorProcess {
    pub(crate) fn new(binary: PathBuf, exec_root: &Path) -> Self {
        Self {
            process: HostProcess::new(binary, exec_root, "ambassador", "the host's ambassador"),
        }
    }

    /// Replaces what it listens on and where that leads; what stays the same is not touched. Returns what it cannot
    /// listen on, by the forward's name, and why; all else is served.
    pub(crate) async fn configure(
        &self,
        forwards: &[ForwardSpec],
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let answer = self
            .put(
                "/config?available=true",
                spec::to_json(forwards).to_string(),
            )
            .await
            .context("configure the host's ambassador")?;
        let unavailable = answer["unavailable"].as_array().into_iter().flatten();
        let told = |one: &Value| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            (text("forward"), text("message"))
        };
        Ok(unavailable.map(told).collect())
    }

    /// Replaces the names that containers resolve.
    pub(crate) async fn name(&self, names: &NamesDocument) -> anyhow::Result<()> {
        let body = serde_json::to_string(names)?;
        self.put("/names", body)
            .await
            .map(drop)
            .context("tell names to the host's ambassador")
    }

    /// What its name server has answered.
    ///
    /// # Errors
    ///
    /// If it is not there: it is not started for that.
    pub(crate) async fn name_stats(&self) -> anyhow::Result<NameStats> {
        let body = self.ask("/names/stats").await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// What it answers to a GET.
    ///
    /// # Errors
    ///
    /// If it is not there, or refuses.
    pub(crate) async fn ask(&self, path: &str) -> anyhow::Result<Bytes> {
        let asked = async {
            let stream = UnixStream::connect(&self.process.socket).await?;
            let request = Request::get(path).header("host", "ambassador");
            let (status, body) = exchange(stream, request.body(Full::default())?).await?;
            match status.is_success() {
                true => Ok(body),
                false => bail!("GET {path}: {status}"),
            }
        };
        timeout(QUESTION, asked)
            .await
            .context("no answer in time")?
    }

    /// The lines that it answers to a GET, as they come.
    ///
    /// # Errors
    ///
    /// If it is not there, or refuses; in the stream, if it says no more.
    pub(crate) async fn lines(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<String>> + Unpin + use<>> {
        let stream = UnixStream::connect(&self.process.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driving = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(path).header("host", "ambassador");
        let request = request.body(Full::<Bytes>::default())?;
        let answer = timeout(QUESTION, sender.send_request(request)).await??;
        if !answer.status().is_success() {
            bail!("GET {path}: {}", answer.status());
        }
        let body = answer.into_body().into_data_stream();
        let reader = StreamReader::new(body.map_err(std::io::Error::other));
        let lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LONGEST_LINE));
        Ok(lines.map(move |line| {
            let _ = (&driving, &sender); // as long as somebody reads
            Ok(line?)
        }))
    }

    /// Whether the process is there.
    pub(crate) async fn answers(&self) -> bool {
        self.process.answers().await
    }

    async fn put(&self, path: &str, body: String) -> anyhow::Result<Value> {
        let stream = self.process.connect(&self.arguments()).await?;
        let request = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header("host", "ambassador")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        timeout(REQUEST, send(stream, request))
            .await
            .context("no answer in time")?
    }

    /// Ends the process, when nothing is left for it to carry.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        self.process.end()
    }

    fn arguments(&self) -> [OsString; 4] {
        let mut admin = OsString::from("unix://");
        admin.push(&self.process.socket);
        [
            "ambassador".into(),
            "--names".into(),
            "--admin".into(),
            admin,
        ]
    }
}

async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    drop(driving);
    Ok((status, body))
}

/// The answer's body; null if it has none.
async fn send(stream: UnixStream, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
    let (status, body) = exchange(stream, request).await?;
    let body = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(body);
    }
    let message = body["message"].as_str().unwrap_or("no message");
    match status {
        StatusCode::CONFLICT => Err(Refusal::conflict(message).into()),
        _ => bail!("{status}: {message}"),
    }
}
