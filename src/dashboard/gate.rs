//! Who is let through the door, and who is told what to do instead.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderName, ORIGIN, SET_COOKIE, UPGRADE,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use super::{ALLOWED, Asset, Crossing, DOOR, EXEC, ROOT, Secret, headers};
use crate::daemon::audit::Peer;

/// What browsers say of the page that a request comes from.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Bytes of a token that is shown; more is none.
const LONGEST: usize = 1024;

/// The door.
pub(crate) struct Gate {
    secret: Secret,
    /// Whether programs may be run in containers.
    exec: bool,
    crossing: Crossing,
    address: SocketAddr,
}

/// Why somebody is not let in.
struct Refused(StatusCode, String);

impl Gate {
    /// A door at `address`.
    pub(crate) fn new(secret: Secret, exec: bool, crossing: Crossing, address: SocketAddr) -> Self {
        Self {
            secret,
            exec,
            crossing,
            address,
        }
    }

    /// Where a browser opens the page.
    pub(crate) fn url(&self) -> String {
        self.url_with(self.secret.token())
    }

    /// The same, for once.
    pub(crate) fn url_for_once(&self) -> String {
        self.url_with(&self.secret.token_for_once())
    }

    /// What stands behind `#` no browser sends, nor tells any other page.
    fn url_with(&self, token: &str) -> String {
        format!("http://{}/#token={token}", self.address)
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request, peer: SocketAddr) -> Response {
        let page = request.uri().path() == "/";
        let mut answer = match self.admit(request, peer).await {
            Ok(answer) => answer,
            Err(Refused(StatusCode::UNAUTHORIZED, _)) if page => {
                let [door, ..] = &DOOR;
                (StatusCode::UNAUTHORIZED, asset(door)).into_response()
            }
            Err(Refused(status, message)) => (status, format!("{message}\n")).into_response(),
        };
        headers::add(answer.headers_mut());
        answer
    }

    async fn admit(&self, request: Request, peer: SocketAddr) -> Result<Response, Refused> {
        let host = self.check_host(request.headers())?;
        check_page(request.headers(), &host)?;
        let path = request.uri().path();
        let named = path.strip_prefix('/').filter(|name| !name.is_empty());
        if let Some(part) = DOOR.iter().find(|part| named == Some(part.name)) {
            return Ok(asset(part));
        }
        if path == "/login" && request.method() == Method::POST {
            return self.log_in(request).await;
        }
        let by_cookie = self.recognise(request.headers())?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let message = "nothing is changed by way of this page: GET and HEAD are answered";
            let allow = [(ALLOW, "GET, HEAD")];
            return Ok((StatusCode::METHOD_NOT_ALLOWED, allow, message).into_response());
        }
        let upgrades = request.headers().contains_key(UPGRADE);
        if upgrades && by_cookie && !request.headers().contains_key(ORIGIN) {
            let message = "a WebSocket comes from a page, which its Origin names, or has an Authorization header";
            return Err(Refused(StatusCode::FORBIDDEN, message.to_owned()));
        }
        Ok(self.crossing.pass(self.onward(request, peer)?).await)
    }

    /// The request as it goes on: to where the daemon has it, without what was to be shown here alone.
    fn onward(&self, mut request: Request, peer: SocketAddr) -> Result<Request, Refused> {
        let behind = request.uri().path_and_query();
        let behind = behind.map_or("/", |behind| behind.as_str());
        let uri: Uri = format!("{ROOT}{behind}")
            .parse()
            .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("{behind}: {error}")))?;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for name in [COOKIE, AUTHORIZATION, ORIGIN] {
            headers.remove(name);
        }
        headers.remove(EXEC);
        if self.exec {
            headers.insert(EXEC, HeaderValue::from_static(ALLOWED));
        }
        let peer = Peer::Page { page: peer };
        request.extensions_mut().insert(ConnectInfo(peer));
        Ok(request)
    }

    /// A page elsewhere whose name was made to lead to this machine says that name.
    fn check_host(&self, headers: &HeaderMap) -> Result<String, Refused> {
        let said = headers.get(HOST).and_then(|host| host.to_str().ok());
        let said = said.unwrap_or_default();
        match is_loopback(said) {
            true => Ok(said.to_owned()),
            false => Err(Refused(
                StatusCode::FORBIDDEN,
                format!(
                    "{said:?} is not an address of this machine's loopback: open http://{}/",
                    self.address
                ),
            )),
        }
    }

    /// Whether it is by a cookie that the sender may come in, rather than by the token itself.
    fn recognise(&self, headers: &HeaderMap) -> Result<bool, Refused> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let token = value.to_str().ok()?.strip_prefix("Bearer ")?;
            Some(token.trim())
        });
        if bearer.is_some_and(|token| self.secret.is_token(token)) {
            return Ok(false);
        }
        let name = self.cookie_name();
        let lines = headers.get_all(COOKIE).into_iter();
        let mut cookies = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        let shown = cookies.find(|(key, value)| *key == name && self.secret.is_cookie(value));
        match shown {
            Some(_) => Ok(true),
            None => Err(Refused(
                StatusCode::UNAUTHORIZED,
                "this needs a token: run `nuncio dashboard` on this machine, and open the address that it prints; or send `Authorization: Bearer TOKEN`".to_owned(),
            )),
        }
    }

    async fn log_in(&self, request: Request) -> Result<Response, Refused> {
        let token = to_bytes(request.into_body(), LONGEST).await;
        let token = token.unwrap_or_default();
        let token = String::from_utf8_lossy(&token);
        if !self.secret.is_token(token.trim()) {
            let message = "this token is not, or no longer, valid: run `nuncio dashboard` again";
            return Err(Refused(StatusCode::UNAUTHORIZED, message.to_owned()));
        }
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict",
            self.cookie_name(),
            self.secret.cookie()
        );
        Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
    }

    /// Browsers send cookies to all ports of a machine.
    fn cookie_name(&self) -> String {
        format!("nuncio-{}", self.address.port())
    }
}

/// Refuses what a page of another origin has a browser send.
fn check_page(headers: &HeaderMap, host: &str) -> Result<(), Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = headers.contains_key(ORIGIN).then(|| text(ORIGIN));
    let foreign = match origin {
        Some(origin) => origin != Some(&format!("http://{host}")),
        None => matches!(text(SITE), Some("cross-site" | "same-site")),
    };
    // A link elsewhere may lead here, to who has no cookie for such a step.
    let follows_a_link = text(HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
    match foreign && !follows_a_link {
        false => Ok(()),
        true => Err(Refused(
            StatusCode::FORBIDDEN,
            "this is for the dashboard's own page, not for that of another site".to_owned(),
        )),
    }
}

/// Whether a Host header names loopback, at whatever port: one may be forwarded here from another machine's.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let plain = !host.contains('@');
    plain && (name == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

fn asset(asset: &Asset) -> Response {
    ([(CONTENT_TYPE, asset.kind)], Body::from(asset.text)).into_response()
}

/// A door that several connections share.
pub(super) type Shared = Arc<Gate>;

#[cfg(test)]
mod tests;
