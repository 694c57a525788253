//! Talks to a daemon: HTTP/1.1 over its unix socket, in the Engine API's paths and JSON.

mod ambassador;
mod encode;
mod error;
mod hearing;
mod lines;
mod secure;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, UPGRADE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

pub(crate) use ambassador::{AmbassadorClient, AmbassadorHost};
pub(crate) use error::ClientError;
pub(crate) use lines::Lines;

use crate::cli::host::Host;
use hearing::Hearing;

/// The API version whose bodies this client speaks.
const VERSION: (u32, u32) = (1, 49);
/// The longest answer that is taken as a whole; streams are not limited.
const ANSWER_LIMIT: usize = 64 << 20;

/// What the daemon is told of who asks.
const AGENT: &str = concat!("nuncio/", env!("CARGO_PKG_VERSION"));

/// What a hijacked connection carries, in both directions.
pub(crate) type Hijacked = TokioIo<hyper::upgrade::Upgraded>;
type Body = BoxBody<Bytes, std::io::Error>;

/// A daemon that answered.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    host: Host,
    version: (u32, u32),
}

impl Client {
    /// Finds out whether a daemon answers at `host`, and which version both sides speak: what `DOCKER_API_VERSION`
    /// says, else the newest that both know.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] if nothing listens there.
    pub(crate) async fn connect(host: Host) -> Result<Self, ClientError> {
        let client = Self {
            host,
            version: VERSION,
        };
        let ping = Call::new(&client, Method::GET, "/_ping".to_owned());
        let wanted = std::env::var("DOCKER_API_VERSION").unwrap_or_default();
        if let Some(version) = parse_version(wanted.trim_start_matches('v')) {
            ping.send().await?;
            return Ok(Self { version, ..client });
        }
        let headers = ping.send().await?.response.headers().clone();
        let theirs = headers
            .get("api-version")
            .and_then(|value| parse_version(value.to_str().ok()?));
        Ok(Self {
            version: theirs.map_or(VERSION, |theirs| theirs.min(VERSION)),
            ..client
        })
    }

    /// Whether the daemon is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.host, Host::Unix(_))
    }

    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    /// The version of this client, whatever the daemon speaks.
    pub(crate) fn own_version() -> String {
        format!("{}.{}", VERSION.0, VERSION.1)
    }

    pub(crate) fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub(crate) fn head(&self, path: &str) -> Call<'_> {
        self.call(Method::HEAD, path)
    }

    pub(crate) fn put(&self, path: &str) -> Call<'_> {
        self.call(Method::PUT, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    /// Passes on the head of a request that has no body, and takes whatever is answered.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] if nothing listens there, [`ClientError::Broken`] if it does not answer.
    pub(crate) async fn pass(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, ClientError> {
        let what = format!("{method} {}", uri.path());
        let mut request = Request::new(full(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        self.deliver(request, &what).await
    }

    async fn deliver(
        &self,
        request: Request<Body>,
        what: &str,
    ) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source| ClientError::unreachable(&self.host, source);
        match &self.host {
            Host::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                deliver(socket.map_err(unreachable)?, request, what).await
            }
            Host::Tcp { tls: None, .. } => {
                let host = self.host.clone();
                Err(ClientError::NoCertificate { host })
            }
            Host::Tcp {
                address,
                tls: Some(files),
            } => {
                let socket = secure::connect(address, files).await;
                deliver(socket.map_err(unreachable)?, request, what).await
            }
        }
    }

    fn call(&self, method: Method, path: &str) -> Call<'_> {
        let path = encode::path(path);
        // what is our own has its version in the path
        let path = if path.starts_with("/nuncio/") {
            path
        } else {
            format!("/v{}{path}", self.version())
        };
        Call::new(self, method, path)
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A request that is being put together.
pub(crate) struct Call<'client> {
    client: &'client Client,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Result<Body, serde_json::Error>,
}

impl<'client> Call<'client> {
    fn new(client: &'client Client, method: Method, path: String) -> Self {
        let body = Ok(full(Bytes::new()));
        Self {
            client,
            method,
            path,
            query: String::new(),
            headers: HeaderMap::new(),
            body,
        }
    }

    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query
            .push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        self.query.push_str(&encode::query_value(value.as_ref()));
        self
    }

    /// `name=1` if `condition` holds.
    pub(crate) fn flag(self, name: &str, condition: bool) -> Self {
        if condition {
            self.query(name, "1")
        } else {
            self
        }
    }

    pub(crate) fn optional(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// A header that no log may show.
    pub(crate) fn secret_header(mut self, name: &'static str, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn json(self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).map(|json| full(json.into()));
        Self {
            body,
            ..self.header("content-type", "application/json")
        }
    }

    pub(crate) fn body(self, body: Body, content_type: &'static str) -> Self {
        Self {
            body: Ok(body),
            ..self.header("content-type", content_type)
        }
    }

    /// Sends the request and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if the daemon's answer is an error.
    pub(crate) async fn send(self) -> Result<Answer, ClientError> {
        let Self {
            client,
            method,
            path,
            query,
            headers,
            body,
        } = self;
        let what = format!("{method} {path}");
        let body = body.map_err(|source| ClientError::Body {
            what: what.clone(),
            source,
        })?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() =
            format!("{path}{query}")
                .parse()
                .map_err(|source| ClientError::Path {
                    what: what.clone(),
                    source,
                })?;
        *request.headers_mut() = headers;
        let response = client.deliver(request, &what).await?;
        accepted(Answer { what, response }).await
    }

    /// Sends the request and takes over its connection.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotHijacked`] if the daemon answers otherwise than 101.
    pub(crate) async fn hijack(mut self) -> Result<(Hijacked, Framing), ClientError> {
        self.headers
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        self.headers
            .insert(UPGRADE, HeaderValue::from_static("tcp"));
        let Answer { what, response } = self.send().await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::NotHijacked {
                what,
                status: response.status(),
            });
        }
        let framing = Framing::of(response.headers());
        let broken = |source| ClientError::Broken { what, source };
        let stream = hyper::upgrade::on(response).await.map_err(broken)?;
        Ok((TokioIo::new(stream), framing))
    }
}

/// Sends a request over a new connection and waits for the head of the answer, which is no refusal.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
    what: String,
) -> Result<Answer, ClientError> {
    let response = deliver(stream, request, &what).await?;
    accepted(Answer { what, response }).await
}

async fn accepted(answer: Answer) -> Result<Answer, ClientError> {
    if answer.is_success() {
        Ok(answer)
    } else {
        Err(answer.into_refusal().await)
    }
}

/// Sends a request over a new connection and waits for the head of whatever answer.
async fn deliver(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Body>,
    what: &str,
) -> Result<Response<Incoming>, ClientError> {
    let broken = |source| ClientError::Broken {
        what: what.to_owned(),
        source,
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(Hearing::new(stream)))
            .await
            .map_err(broken)?;
    // a failing connection fails the request or the body too, which is where it is told
    tokio::spawn(connection.with_upgrades());
    let own = request.headers_mut();
    own.insert(HOST, HeaderValue::from_static("nuncio"));
    own.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    sender.send_request(request).await.map_err(broken)
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// How standard output and error share a stream, as far as the daemon says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    Multiplexed,
    /// Raw, or not said: before 1.42 both are called `raw-stream`.
    Unsaid,
}

impl Framing {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_TYPE) {
            Some(value) if value == "application/vnd.docker.multiplexed-stream" => {
                Self::Multiplexed
            }
            _ => Self::Unsaid,
        }
    }
}

/// The head of an answer, its body still to be read.
pub(crate) struct Answer {
    what: String,
    response: Response<Incoming>,
}

impl Answer {
    fn is_success(&self) -> bool {
        let status = self.response.status();
        status.is_success()
            || status == StatusCode::SWITCHING_PROTOCOLS
            || status == StatusCode::NOT_MODIFIED
    }

    /// A header, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Reads the body as one JSON document.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if it is not what `T` wants.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let what = self.what.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Unexpected { what, source })
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Cut`] if the connection ends first, or the body is absurdly long.
    pub(crate) async fn bytes(self) -> Result<Bytes, ClientError> {
        let cut = |source| ClientError::Cut {
            what: self.what.clone(),
            source,
        };
        let body = Limited::new(self.response.into_body(), ANSWER_LIMIT)
            .collect()
            .await;
        Ok(body.map_err(cut)?.to_bytes())
    }

    /// The next piece of the body as it comes; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Cut`] if the connection ends first.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.response.frame().await {
            let cut = |source: hyper::Error| ClientError::Cut {
                what: self.what.clone(),
                source: source.into(),
            };
            if let Ok(data) = frame.map_err(cut)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The body as lines of JSON.
    pub(crate) fn lines(self) -> Lines {
        Lines::new(self)
    }

    async fn into_refusal(self) -> ClientError {
        #[derive(serde::Deserialize)]
        struct Refusal {
            message: String,
        }
        let (what, status) = (self.what.clone(), self.response.status());
        let bytes = match self.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        let message = match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => refusal.message,
            Err(_) if bytes.is_empty() => format!("{what}: {status}"),
            Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        };
        ClientError::Refused { status, message }
    }
}
