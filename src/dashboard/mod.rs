//! The door before the dashboard: who may open its page on this machine's loopback, and what of the API that page reaches.
//!
//! The page, and the part of the API that it uses, are the daemon's (`src/api/dashboard`). Whoever reaches the daemon's socket
//! is let in there anyway. A browser does not reach that, so something listens on loopback in between: the daemon itself
//! (`daemon --dashboard-addr`), or `nuncio dashboard`. Every process and every page of every browser on the machine reaches
//! loopback, too, which is what is guarded against here.

mod crossing;
mod gate;
pub(crate) mod headers;
mod listener;
mod patient;
mod secret;

pub(crate) use crossing::Crossing;
pub(crate) use gate::Gate;
pub(crate) use listener::serve;
pub(crate) use secret::Secret;

/// Below which path the daemon has the page, and all that it asks for.
pub(crate) const ROOT: &str = "/nuncio/v1/dashboard";
/// Says, in a request that has passed the door, whether programs may be run in containers. No page can send it.
pub(crate) const EXEC: &str = "nuncio-dashboard-exec";
/// Its value if so.
pub(crate) const ALLOWED: &str = "allowed";

/// What is part of the page: its name, its type and its text.
pub(crate) struct Asset {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) text: &'static str,
}

macro_rules! asset {
    ($name:literal, $path:literal, $kind:literal) => {
        Asset {
            name: $name,
            kind: $kind,
            text: include_str!(concat!("web/", $path)),
        }
    };
}

/// The page.
pub(crate) const PAGE: Asset = asset!("index.html", "index.html", "text/html; charset=utf-8");

/// What the page consists of beside itself.
pub(crate) const ASSETS: [Asset; 15] = [
    asset!("style.css", "style.css", "text/css; charset=utf-8"),
    asset!("app.js", "app.js", "text/javascript; charset=utf-8"),
    asset!("detail.js", "detail.js", "text/javascript; charset=utf-8"),
    asset!("draw.js", "draw.js", "text/javascript; charset=utf-8"),
    asset!("edges.js", "edges.js", "text/javascript; charset=utf-8"),
    asset!("feed.js", "feed.js", "text/javascript; charset=utf-8"),
    asset!("layout.js", "layout.js", "text/javascript; charset=utf-8"),
    asset!("model.js", "model.js", "text/javascript; charset=utf-8"),
    asset!(
        "terminal.js",
        "terminal.js",
        "text/javascript; charset=utf-8"
    ),
    asset!("theme.js", "theme.js", "text/javascript; charset=utf-8"),
    asset!("words.js", "words.js", "text/javascript; charset=utf-8"),
    asset!(
        "xterm.js",
        "vendor/xterm.js",
        "text/javascript; charset=utf-8"
    ),
    asset!(
        "addon-fit.js",
        "vendor/addon-fit.js",
        "text/javascript; charset=utf-8"
    ),
    asset!("xterm.css", "vendor/xterm.css", "text/css; charset=utf-8"),
    asset!(
        "xterm.LICENSE",
        "vendor/LICENSE",
        "text/plain; charset=utf-8"
    ),
];

/// What those see who have not shown the token.
const DOOR: [Asset; 3] = [
    asset!("", "door.html", "text/html; charset=utf-8"),
    asset!("door.js", "door.js", "text/javascript; charset=utf-8"),
    asset!("door.css", "door.css", "text/css; charset=utf-8"),
];
