//! The page, as its user sees it.

use std::time::Instant;

use super::support::{Browser, Host, Image, wait_until};
use super::{ADDRESS, id_of, one_host, two_hosts};

/// A browser that has opened the page of a host's daemon.
#[track_caller]
fn opened(host: &Host) -> Browser {
    let mut browser = Browser::new(host);
    browser.open(&host.ok("dashboard"));
    browser.until("document.querySelector('.node.host')");
    browser
}

/// An expression for the element of a node or link, by the beginning of its name.
fn element(key: &str) -> String {
    format!("document.querySelector('g[data-key^=\"{key}\"]')")
}

/// What is said of a node or a link to who does not see it.
#[track_caller]
fn said(browser: &mut Browser, key: &str) -> String {
    let said = browser.eval(&format!("{}.getAttribute('aria-label')", element(key)));
    said.as_str().unwrap_or_default().to_owned()
}

/// Fails if the page asked anybody else, or complained of anything but that the token was not there at first.
#[track_caller]
fn kept_to_itself(browser: &mut Browser) {
    let foreign = |url: &String| {
        let own = ["http", "ws"].map(|scheme| format!("{scheme}://{ADDRESS}/"));
        !own.iter().any(|own| url.starts_with(own))
            && !["about:", "data:"].iter().any(|own| url.starts_with(own))
    };
    let requests = browser.requests();
    assert!(!requests.is_empty());
    let foreign: Vec<_> = requests.into_iter().filter(foreign).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let mut complaints = browser.complaints();
    complaints.retain(|one| !one.contains("401 (Unauthorized)"));
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_link_across_hosts_is_drawn_and_tells_what_passes_and_who_ends() {
    let [a, b] = two_hosts(Image::Redis, &[]);
    a.ok("run -d --name redis-server redis");
    b.ok("run -d --name client --link redis-server:redis redis sleep 1000");
    let mut browser = opened(&b);
    let link = "link/redis-server/";
    let label = format!("document.querySelector('.label[data-key^=\"{link}\"]')");
    // It is there before anything has passed.
    browser.until(&label);
    browser.until(&format!("{label}.textContent.includes('0 open')"));
    assert!(said(&mut browser, link).starts_with("Link from client to redis-server: "));
    let client = format!("container/{}", id_of(&b, "client"));
    assert_eq!(said(&mut browser, &client), "Container client, running");

    wait_until("redis answers over the link", || {
        let ping = b.nuncio("exec client redis-cli -h redis ping");
        ping.stdout.trim() == "PONG"
    });
    // One flow that stays.
    let subscribe = [
        "exec",
        "client",
        "redis-cli",
        "-h",
        "redis",
        "subscribe",
        "x",
    ];
    let _flow = b.spawn(&subscribe[..]);
    let began = Instant::now();
    browser.until(&format!("{label}.textContent.includes('1 open')"));
    println!("a flow was seen after {:?}", began.elapsed());
    browser.until(&format!("/[0-9] ms/.test({label}.textContent)"));
    let redis = format!("container/{}", id_of(&a, "redis-server"));
    let inside = |inner: &str, outer: &str| {
        format!(
            "(([one, other]) => one.x >= other.x && one.x + one.width <= other.x + other.width \
             && one.y >= other.y && one.y + one.height <= other.y + other.height)\
             ([{inner}, {outer}].map((group) => group.querySelector('rect').getBBox()))"
        )
    };
    let host = "[...document.querySelectorAll('.node.host')].find((host) => host.textContent.startsWith('host-1'))";
    assert_eq!(browser.eval(&inside(&element(&redis), host)), true);
    assert_eq!(browser.eval(&inside(&element(&client), host)), false);

    // Where things stand does not depend on what passes.
    let stands = "[...document.querySelectorAll('.node > rect')].map((rect) => JSON.stringify(rect.getBBox())).join()";
    let before = browser.eval(stands);
    b.ok("exec client redis-cli -h redis set colour green");
    b.ok("kill client");
    let began = Instant::now();
    browser.until(&format!(
        "{}.getAttribute('aria-label') == 'Container client, exited'",
        element(&client)
    ));
    println!("an end was seen after {:?}", began.elapsed());
    browser
        .until("document.querySelector('#events').textContent.includes('container client: die')");
    assert_eq!(browser.eval(stands), before);
    a.ok("rm -f redis-server");
    browser.until(&format!("!{}", element(&redis)));
    kept_to_itself(&mut browser);
}

#[test]
fn all_of_it_is_reached_by_keys() {
    let host = one_host(&[]);
    host.ok("run -d --name store busybox sleep 1000");
    host.ok("run -d --name web --link store:db busybox sleep 1000");
    host.ok("run -d --name cache busybox sleep 1000");
    let mut browser = opened(&host);
    browser.until("document.querySelectorAll('.node.container').length == 3");

    // From node to node to link.
    let focused = "document.activeElement.getAttribute('aria-label') ?? ''";
    let mut seen = Vec::new();
    for _ in 0..20 {
        browser.press("Tab");
        seen.push(
            browser
                .eval(focused)
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    for wanted in [
        "Host host-1",
        "Container cache, running",
        "Container web, running",
        "Link from web to store: straight",
    ] {
        assert!(
            seen.iter().any(|said| said.starts_with(wanted)),
            "{wanted}: {seen:#?}"
        );
    }

    // Searching, and from there to what was found, and into it.
    browser.press("/");
    browser.write("sto");
    browser.until("document.querySelector('#found').textContent == '2 found'");
    browser.until("document.querySelector('.node.container.faded .name').textContent != 'store'");
    browser.press("Enter");
    assert_eq!(browser.eval(focused), "Container store, running");
    browser.press("Enter");
    browser.until("document.querySelector('#detail h2')?.textContent == 'store'");
    browser.press("Escape");
    browser.until("document.querySelector('#detail').hidden");
    assert_eq!(browser.eval(focused), "Container store, running");
    browser.press("/");
    browser.press("Escape");
    browser.until("!document.querySelector('.faded')");

    // Back in time, and to the present.
    browser.eval("document.querySelector('#time').focus()");
    for _ in 0..3 {
        browser.press("ArrowLeft");
    }
    browser.until("document.querySelector('#when').textContent.startsWith('30 s ago, ')");
    assert_eq!(
        browser.eval(
            "document.querySelector('#time').getAttribute('aria-valuetext').startsWith('30 s ago')"
        ),
        true
    );
    browser.press("ArrowRight");
    browser.until("document.querySelector('#when').textContent.startsWith('20 s ago, ')");
    browser.press("Escape");
    browser.until("document.querySelector('#when').textContent == 'now'");
    kept_to_itself(&mut browser);
}

#[test]
fn colours_are_the_systems_until_they_are_switched() {
    let host = one_host(&[]);
    let mut browser = Browser::new(&host);
    browser.prefer("dark");
    browser.open(&host.ok("dashboard"));
    let ground = "getComputedStyle(document.body).backgroundColor";
    let theme = |theme: &str| format!("document.documentElement.dataset.theme == '{theme}'");
    browser.until(&theme("dark"));
    let dark = browser.eval(ground);
    browser.prefer("light");
    browser.until(&theme("light"));
    assert_ne!(browser.eval(ground), dark);
    browser.eval("document.querySelector('#theme').click()");
    browser.until(&theme("dark"));
    assert_eq!(browser.eval(ground), dark);
    browser.prefer("dark");
    browser.prefer("light");
    browser.eval("window.before = true");
    browser.eval("location.reload()");
    browser.until(&format!("!window.before && {}", theme("dark")));
    kept_to_itself(&mut browser);
}

#[test]
fn the_last_hour_can_be_gone_back_to() {
    let [a, b] = two_hosts(Image::Busybox, &[]);
    let serve = "head -c 100000 /dev/zero >/tmp/zeros; exec httpd -f -h /tmp";
    let run = [
        "run", "-d", "--name", "store", "--expose", "80", "busybox", "sh", "-c", serve,
    ];
    a.ok(&run[..]);
    b.ok("run -d --name web --link store:db busybox sleep 1000");
    let mut browser = opened(&b);
    let rest = "document.querySelector('.label[data-key^=\"link/store/\"] .rest').textContent";
    browser.until(&format!("{rest}.includes('0 open')"));
    wait_until("what was before it is remembered", || {
        b.ok("map --format json --history")
            .contains("\"samples\":[[")
    });
    wait_until("the link is used", || {
        let get = "wget -q -O - http://db/zeros | wc -c";
        b.nuncio(["exec", "web", "sh", "-c", get]).stdout.trim() == "100000"
    });
    // Once it has been noted, its flow is seen at that time, and not before.
    let figures = "fetch('map?history=1').then((answer) => answer.json()).then((map) => \
        JSON.stringify(map.links.find((link) => link.id.startsWith('link/store/')).samples.map(([time, carried]) => carried.flows)))";
    wait_until("it is remembered what passed", || {
        browser
            .eval(figures)
            .as_str()
            .is_some_and(|flows| flows.starts_with("[0,"))
    });
    browser.eval(&format!("{}.focus()", element("link/store/")));
    browser.press("Enter");
    let flows = "[...document.querySelectorAll('#detail dt')].find((term) => term.textContent == 'Flows')?.nextSibling.textContent ?? ''";
    browser.until(&format!("/0 open of [1-9]/.test({flows})"));
    let back = "((bar) => { bar.value = -3600; bar.dispatchEvent(new Event('input', { bubbles: true })) })(document.querySelector('#time'))";
    browser.eval(back);
    browser.until("document.body.classList.contains('past')");
    browser.until(&format!("{flows} == '0 open of 0'"));
    browser.until("document.querySelector('#when').textContent.startsWith('60 min ago')");
    browser.eval("document.querySelector('#live').click()");
    browser.until(&format!("/0 open of [1-9]/.test({flows})"));
    browser.until("document.querySelector('#detail .chart polyline')");
    kept_to_itself(&mut browser);
}

#[test]
fn what_a_container_writes_and_takes_is_shown_and_programs_are_run_where_that_is_allowed() {
    let host = one_host(&["--dashboard-allow-exec"]);
    let work = "i=0; while true; do i=$((i+1)); echo line $i; echo trouble >&2; sleep 0.2; done";
    host.ok(["run", "-d", "--name", "busy", "busybox", "sh", "-c", work]);
    let busy = format!("container/{}", id_of(&host, "busy"));
    let mut browser = opened(&host);
    browser.until(&element(&busy));
    browser.eval(&format!("{}.focus()", element(&busy)));
    browser.press("Enter");
    let log = "document.querySelector('.log').textContent";
    browser.until(&format!("{log}.includes('line 1\\n')"));
    browser.until("document.querySelector('.log .stderr')?.textContent == 'trouble\\n'");
    let lines = format!("{log}.split('\\n').length");
    let before = browser.eval(&lines);
    browser.until(&format!("{lines} > {before}"));
    browser.until("/% of a processor · .* of .* · [0-9]+ process/.test(document.querySelector('.taken').textContent)");
    browser.until("document.querySelector('#detail').textContent.includes('Image')");

    browser.eval("document.querySelector('.run').click()");
    let screen = "document.querySelector('.terminal').innerText";
    browser.until(&format!("/[#$]\\s/.test({screen})"));
    browser.write("echo $((6 * 7))-answers");
    browser.press("Enter");
    browser.until(&format!("{screen}.includes('42-answers')"));
    browser.write("exit 3");
    browser.press("Enter");
    browser.until(&format!("{screen}.includes('ended with exit status 3')"));

    // It is told when what is looked at goes.
    host.ok("rm -f busy");
    browser.until("document.querySelector('#detail').innerText.includes('it has been removed')");
    browser.until("document.querySelector('#detail').innerText.includes('This is gone')");
    kept_to_itself(&mut browser);
}

#[test]
fn a_page_that_only_shows_says_so_and_one_without_its_daemon_too() {
    let host = one_host(&[]);
    host.ok("run -d --name web busybox sleep 1000");
    let web = format!("container/{}", id_of(&host, "web"));
    let mut browser = opened(&host);
    browser.until(&element(&web));
    browser.eval(&format!("{}.focus()", element(&web)));
    browser.press("Enter");
    browser.until("document.querySelector('.hint').textContent.includes('--allow-exec')");
    assert_eq!(
        browser.eval("document.querySelector('.run')"),
        serde_json::Value::Null
    );
    let asked = "fetch('containers/web/terminal').then((answer) => answer.status)";
    assert_eq!(browser.eval(asked), 403);

    host.kill_daemon();
    browser.until("document.body.dataset.state == 'lost'");
    browser.until("document.querySelector('#state').textContent.includes('Trying again')");
    host.start_again();
    browser.until("document.body.dataset.state == 'live'");
    browser.until(&element(&web));
}

#[test]
fn without_its_token_the_page_says_what_to_do() {
    let host = one_host(&[]);
    let mut browser = Browser::new(&host);
    browser.open(&format!("http://{ADDRESS}/"));
    browser.until("document.body.innerText.includes('This page needs a token')");
    browser.open(&format!("http://{ADDRESS}/#token=wrong"));
    browser.until("document.body.innerText.includes('run `nuncio dashboard` again')");
    browser.open(&host.ok("dashboard"));
    browser.until("document.querySelector('.node.host')");
    // The token is in no address, and no script can read what stands for it.
    assert_eq!(browser.eval("location.href"), format!("http://{ADDRESS}/"));
    assert_eq!(browser.eval("document.cookie"), "");
}
