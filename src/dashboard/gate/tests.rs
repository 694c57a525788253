use axum::Router;
use axum::routing::get;
use proptest::prelude::*;

use super::*;

const ADDRESS: &str = "127.0.0.1:8080";

fn gate() -> Gate {
    let told = async |headers: HeaderMap, uri: Uri| {
        let exec = headers
            .get(EXEC)
            .map_or("", |value| value.to_str().expect("text"));
        let secrets = [COOKIE, AUTHORIZATION, ORIGIN].map(|name| headers.contains_key(name));
        format!("{uri} {exec} {secrets:?}")
    };
    let router = Router::new().fallback(get(told));
    let address = ADDRESS.parse().expect("an address");
    Gate::new(Secret::new(), true, Crossing::Here(router), address)
}

async fn ask(gate: &Gate, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path);
    let host = headers.iter().find(|(name, _)| *name == "host");
    if host.is_none() {
        request = request.header("host", ADDRESS);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let peer = "127.0.0.1:1".parse().expect("an address");
    let answer = gate.answer(request, peer).await;
    let policy = answer.headers()[hyper::header::CONTENT_SECURITY_POLICY].to_str();
    assert!(policy.expect("text").contains("script-src 'self';"));
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status().as_u16();
    let bytes = to_bytes(answer.into_body(), 1 << 20).await.expect("short");
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn without_the_token_nobody_comes_in_and_all_are_told_how() {
    let gate = gate();
    let (status, page) = ask(&gate, "GET", "/", &[]).await;
    assert_eq!(status, 401);
    assert!(
        page.contains("<html") && page.contains("nuncio dashboard"),
        "{page}"
    );
    let other = Secret::new();
    let wrong = format!("Bearer {}", other.token());
    let cookie = format!("nuncio-8080={}", other.cookie());
    let token = format!("nuncio-8080={}", gate.secret.token());
    for headers in [
        &[][..],
        &[("authorization", wrong.as_str())],
        &[("authorization", "Bearer ")],
        &[("cookie", cookie.as_str())],
        &[("cookie", token.as_str())],
        &[("cookie", "nuncio-8080=")],
    ] {
        let (status, text) = ask(&gate, "GET", "/map", headers).await;
        assert_eq!(status, 401, "{headers:?}");
        assert!(text.contains("nuncio dashboard"), "{text}");
    }
    assert_eq!(ask(&gate, "POST", "/login", &[]).await.0, 401);
    assert_eq!(ask(&gate, "GET", "/door.js", &[]).await.0, 200);
}

#[tokio::test]
async fn who_shows_it_is_passed_on_without_it() {
    let gate = gate();
    let bearer = format!("Bearer {}", gate.secret.token());
    let cookie = format!("a=b; nuncio-8080={}", gate.secret.cookie());
    let origin = format!("http://{ADDRESS}");
    for headers in [
        &[
            ("authorization", bearer.as_str()),
            ("nuncio-dashboard-exec", "x"),
        ][..],
        &[("cookie", cookie.as_str()), ("origin", origin.as_str())],
        &[("cookie", cookie.as_str()), ("host", "localhost:9")],
        &[("cookie", cookie.as_str()), ("host", "[::1]:9")],
    ] {
        let (status, text) = ask(&gate, "GET", "/map?history=1", headers).await;
        assert_eq!(status, 200, "{headers:?} {text}");
        let expected = "/nuncio/v1/dashboard/map?history=1 allowed [false, false, false]";
        assert_eq!(text, expected);
    }
    for method in ["POST", "PUT", "DELETE"] {
        let headers = [("cookie", cookie.as_str())];
        assert_eq!(ask(&gate, method, "/map", &headers).await.0, 405);
    }
}

#[tokio::test]
async fn neither_other_names_of_this_machine_nor_other_pages_are_let_in() {
    let gate = gate();
    let cookie = format!("nuncio-8080={}", gate.secret.cookie());
    let with = |name, value| [("cookie", cookie.clone()), (name, value)];
    for (name, value) in [
        ("host", "evil.example:8080"),
        ("host", "127.0.0.1.evil.example"),
        ("host", "localhost.evil.example"),
        ("host", "evil.example@127.0.0.1"),
        ("host", "10.0.0.1:8080"),
        ("host", ""),
        ("origin", "http://evil.example"),
        ("origin", "http://127.0.0.1:9090"),
        ("origin", "https://127.0.0.1:8080"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("upgrade", "websocket"),
    ] {
        let headers = with(name, value.to_owned());
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (status, text) = ask(&gate, "GET", "/live", &headers).await;
        assert_eq!(status, 403, "{headers:?} {text}");
    }
    let origin = format!("http://{ADDRESS}");
    let upgrade = [
        ("cookie", cookie.as_str()),
        ("upgrade", "websocket"),
        ("origin", origin.as_str()),
    ];
    assert_eq!(ask(&gate, "GET", "/live", &upgrade).await.0, 200);
}

#[tokio::test]
async fn targets_that_are_no_paths_are_answered_too() {
    let gate = gate();
    let bearer = format!("Bearer {}", gate.secret.token());
    let headers = [("authorization", bearer.as_str())];
    for (method, target) in [
        ("CONNECT", "127.0.0.1:8080"),
        ("OPTIONS", "*"),
        ("GET", "*"),
        ("GET", "http://evil.example"),
        ("GET", "//x/../y"),
    ] {
        assert_eq!(ask(&gate, method, target, &[]).await.0, 401, "{target}");
        let (status, text) = ask(&gate, method, target, &headers).await;
        assert!([200, 400, 405].contains(&status), "{target}: {text}");
    }
}

proptest! {
    #[test]
    fn no_host_but_loopback_is_let_in(host in "[ -~]{0,24}|[a-z0-9.\\[\\]:@-]{0,24}") {
        let rest = host.trim_start_matches('[');
        let begins = ["localhost", "127.", "::1", "0:", "::ffff:127.", "::"];
        let begins = begins.iter().any(|name| rest.to_ascii_lowercase().starts_with(name));
        prop_assert!(!is_loopback(&host) || begins, "{host}");
    }

    #[test]
    fn any_cookie_is_read_and_none_of_them_opens(cookie in "[ -~]{0,64}", bearer in "[ -~]{0,64}") {
        let gate = gate();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookie.parse().expect("visible letters"));
        headers.insert(AUTHORIZATION, bearer.parse().expect("visible letters"));
        prop_assert!(gate.recognise(&headers).is_err());
    }
}
