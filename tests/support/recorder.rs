//! A daemon that is none: it answers as it was told to, and keeps what it was asked.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use super::clients::Client;
use super::command::{Finished, Spawned, tool};
use super::host::NUNCIO;

/// The longest body that is kept.
const LONGEST: usize = 1 << 20;

/// A request, in a form in which those that mean the same are equal.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Asked {
    /// As `POST /services/create`, without the version of the API.
    pub(crate) what: String,
    /// Each parameter; filters sorted.
    pub(crate) query: BTreeMap<String, String>,
    /// Without members that say nothing, such as empty lists.
    pub(crate) body: String,
    /// The account at a registry that came along, decoded.
    pub(crate) account: String,
}

/// What is answered: the status and the body to a method and a path.
type Answers = BTreeMap<String, (u16, Value)>;

#[derive(Default)]
struct Kept {
    answers: Answers,
    asked: Vec<Asked>,
}

/// The API of a daemon, without one.
pub(crate) struct Recorder {
    kept: Arc<Mutex<Kept>>,
    directory: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Recorder {
    /// Serves it at a socket of its own.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let listener = UnixListener::bind(directory.path().join("api.sock")).expect("listen");
        listener.set_nonblocking(true).expect("do not block");
        let kept = Arc::new(Mutex::new(Kept::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("make a runtime");
        let app = Router::new().fallback(answer).with_state(kept.clone());
        runtime.spawn(async move {
            let listener = tokio::net::UnixListener::from_std(listener).expect("take the socket");
            axum::serve(listener, app).await
        });
        Self {
            kept,
            directory,
            _runtime: runtime,
        }
    }

    /// What it is to answer from now on, as `GET /services/web`.
    pub(crate) fn set(&self, what: &str, status: u16, body: Value) {
        let mut kept = self.kept.lock().expect("nobody panics here");
        kept.answers.insert(what.to_owned(), (status, body));
    }

    /// Where files lie that commands name.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Runs a client with `args` in the directory of files, and takes what it asked.
    #[track_caller]
    pub(crate) fn run(&self, client: Client, args: &[&str]) -> (Finished, Vec<Asked>) {
        self.asked();
        let done = self.spawn(client, args, None).finish();
        (done, self.asked())
    }

    /// What was asked since this was called before.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let mut kept = self.kept.lock().expect("nobody panics here");
        std::mem::take(&mut kept.asked)
    }

    /// Starts a client that reads `input`.
    #[track_caller]
    pub(crate) fn spawn(&self, client: Client, args: &[&str], input: Option<&[u8]>) -> Spawned {
        let program = match client {
            Client::Docker => tool("docker"),
            Client::Nuncio => NUNCIO.into(),
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.directory.path())
            .env(
                "DOCKER_HOST",
                format!("unix://{}/api.sock", self.directory.path().display()),
            )
            .env("DOCKER_CONFIG", self.directory.path())
            .env_remove("COMPOSE_FILE");
        Spawned::new(command, input)
    }
}

async fn answer(State(kept): State<Arc<Mutex<Kept>>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path == "/_ping" {
        return Response::builder()
            .header("api-version", "1.49")
            .header("ostype", "linux")
            .body(Body::from("OK"))
            .expect("a response");
    }
    let path = path.strip_prefix("/v1.49").unwrap_or(path);
    let what = format!("{} {path}", parts.method);
    let bytes = to_bytes(body, LONGEST).await.unwrap_or_default();
    let query = query(parts.uri.query().unwrap_or_default());
    let mut kept = kept.lock().expect("nobody panics here");
    kept.asked.push(Asked {
        body: match serde_json::from_slice(&bytes) {
            Ok(body) => lean(body).unwrap_or_default().to_string(),
            Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
        },
        account: account(&parts.headers),
        query: query.clone(),
        what: what.clone(),
    });
    let (status, body) = kept
        .answers
        .get(&what)
        .cloned()
        .unwrap_or_else(|| stock(&what, &query));
    Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a response")
}

/// What is answered unless a test says otherwise: whatever is asked for by name is there, and its id is `id-NAME`.
fn stock(what: &str, query: &BTreeMap<String, String>) -> (u16, Value) {
    let names = || {
        let filters: Value = serde_json::from_str(query.get("filters").map_or("", String::as_str))
            .unwrap_or_default();
        let names = filters["name"].as_array().cloned().unwrap_or_default();
        let named = names.iter().filter_map(Value::as_str).map(str::to_owned);
        named.collect::<Vec<_>>()
    };
    let named = |name: &str| json!({"ID": format!("id-{name}"), "Version": {"Index": 7}, "Spec": {"Name": name}});
    match what {
        "GET /info" => {
            let swarm =
                json!({"LocalNodeState": "active", "ControlAvailable": true, "NodeID": "n1"});
            (200, json!({"ID": "i", "Swarm": swarm}))
        }
        "GET /secrets" | "GET /configs" => (200, names().iter().map(|name| named(name)).collect()),
        "POST /services/create" | "POST /secrets/create" | "POST /configs/create" => {
            (201, json!({"ID": "made"}))
        }
        "GET /services" | "GET /tasks" | "GET /nodes" | "GET /networks" | "GET /volumes" => {
            (200, json!([]))
        }
        "POST /networks/create" => (201, json!({"Id": "made"})),
        what => match what.split_once(' ') {
            Some(("GET", path)) => match path.trim_start_matches('/').split_once('/') {
                Some(("networks", name)) => (
                    200,
                    json!({"Name": name, "Id": format!("id-{name}"), "Scope": "swarm", "Driver": "overlay"}),
                ),
                Some(("secrets" | "configs", name)) => (200, named(name)),
                _ => (404, json!({"message": format!("{path}: not found")})),
            },
            _ => (200, json!({})),
        },
    }
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    });
    pairs
        .map(|(name, value)| match name.as_str() {
            "filters" => (name, filters(&value)),
            _ => (name, value),
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [
                    rest.next().unwrap_or_default(),
                    rest.next().unwrap_or_default(),
                ];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `{"name":{"a":true}}` and `{"name":["a"]}` mean the same.
fn filters(text: &str) -> String {
    let given: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let lists = given.into_iter().map(|(key, values)| {
        let mut values: Vec<String> = match values {
            Value::Object(values) => values.into_iter().map(|(value, _)| value).collect(),
            values => serde_json::from_value(values).unwrap_or_default(),
        };
        values.sort();
        (key, values)
    });
    json!(lists.collect::<BTreeMap<_, _>>()).to_string()
}

/// Members that mean something though they are empty or zero: the client tells them from those that are absent.
const POINTERS: [&str; 9] = [
    "Global",
    "GlobalJob",
    "Replicas",
    "MaxConcurrent",
    "TotalCompletions",
    "MaxAttempts",
    "StopGracePeriod",
    "Init",
    "OomScoreAdj",
];

/// Sorted, and without what Go's client writes out and others leave out.
fn lean(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => None,
            // One language writes 1 for what another calls 1.0.
            Some(whole) if whole.fract() == 0.0 && number.is_f64() => Some(json!(whole as i64)),
            _ => Some(Value::Number(number)),
        },
        Value::Array(items) => {
            let items: Vec<Value> = items
                .into_iter()
                .map(|item| lean(item).unwrap_or_default())
                .collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(members) => {
            let members: BTreeMap<String, Value> = members
                .into_iter()
                .filter_map(|(key, value)| {
                    match POINTERS.contains(&key.as_str()) && !value.is_null() {
                        true => Some((key, value)),
                        false => lean(value).map(|value| (key, value)),
                    }
                })
                .collect();
            let members: Map<String, Value> = members.into_iter().collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        Value::Bool(true) => Some(value),
    }
}

fn account(headers: &HeaderMap) -> String {
    let given = headers
        .get("x-registry-auth")
        .map(axum::http::HeaderValue::as_bytes);
    let text = given.and_then(|text| URL_SAFE.decode(text).ok());
    let account: Value = serde_json::from_slice(&text.unwrap_or_default()).unwrap_or_default();
    lean(account).unwrap_or_default().to_string()
}
