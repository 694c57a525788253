//! The pictures of README.md and docs/DASHBOARD.md: `make screenshots`.

use std::path::Path;

use serde_json::json;

use super::support::{Browser, Host, Image, cluster};
use super::{id_of, proxied};

/// Runs a shell's words again and again in a container.
#[track_caller]
fn work(host: &Host, flags: &str, words: &str) {
    let script = format!("while true; do {words}; done");
    let mut args = vec!["run", "-d"];
    args.extend(flags.split_whitespace());
    args.extend(["redis", "sh", "-c", &script]);
    host.ok(&args[..]);
}

#[test]
#[ignore = "makes pictures rather than tests: make screenshots"]
fn pictures() {
    let hosts @ [a, b, c] = &cluster(&[Image::Redis]);
    a.ok("network create -d overlay mesh");
    a.ok("run -d --name redis-server redis");
    for (number, host) in hosts.iter().enumerate().take(2) {
        let name = format!("--name cache-{}", number + 1);
        host.ok(&format!(
            "run -d --network mesh --label nuncio.service=cache {name} redis"
        ));
    }
    let set =
        "redis-cli -h redis set page \"$(head -c 20000 /dev/zero | tr '\\0' x)\"; date; sleep 0.1";
    work(b, "--name web -p 8080:80 --link redis-server:redis", set);
    let get = "redis-cli -h redis get page >/dev/null; sleep 0.3";
    work(c, "--name worker --link redis-server:redis", get);
    work(c, "--name archive --link redis-server:redis", "sleep 60");
    let ask = "redis-cli -h cache incr seen >/dev/null; sleep 0.2";
    work(c, "--name reader --network mesh", ask);

    let (_running, url) = proxied(b, "--allow-exec");
    let mut browser = Browser::outside();
    let size = json!({ "width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": false });
    browser.call("Emulation.setDeviceMetricsOverride", size);
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    std::fs::create_dir_all(&images).expect("make docs/images");
    browser.prefer("light");
    browser.open(&url);
    browser.until("document.querySelectorAll('.edge.moves').length >= 2");
    browser.until("document.querySelectorAll('.edge.link').length == 2");
    browser.picture(&images.join("dashboard.png"));
    browser.prefer("dark");
    browser.open(&url);
    let web = format!(
        "document.querySelector('g[data-key=\"container/{}\"]')",
        id_of(b, "web")
    );
    browser.until(&web);
    browser.eval(&format!("{web}.focus()"));
    browser.press("Enter");
    browser.until("document.querySelector('.log')?.textContent.length > 400");
    browser.until("document.querySelectorAll('.edge.moves').length >= 2");
    browser.eval("document.querySelector('#detail').scrollTop = 0");
    browser.picture(&images.join("dashboard-container.png"));
}
