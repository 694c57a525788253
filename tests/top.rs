//! `nuncio top` on the whole screen: at a terminal that changes its size, and without one.

mod support;

use serde_json::Value;
use support::{Host, Image, Terminal, Underlay, single, typed, wait_until};

fn run(host: &Host, name: &str) {
    host.ok(&format!("run -d --name {name} busybox sleep 1000"));
}

#[test]
fn keys_lead_through_what_all_hosts_do() {
    let host = single(&[Image::Busybox]);
    run(&host, "web");
    run(&host, "api");
    let terminal = Terminal::new(80, 24);
    terminal.line(&typed(&host.client("top")));
    terminal.until("2 Containers");
    terminal.until("host-1 api");
    terminal.until("host-1 web");
    terminal.keys(&["1"]);
    terminal.until("this host");
    terminal.keys(&["Enter"]);
    terminal.until("of host-1");
    terminal.keys(&["/", "w", "e", "b", "Enter"]);
    terminal.until("/web  1 line");
    assert!(!terminal.screen().contains("host-1 api"));
    terminal.keys(&["Escape"]);
    terminal.until("2 lines");
    terminal.keys(&["p"]);
    terminal.until("paused");
    run(&host, "late");
    terminal.keys(&["p"]);
    terminal.until("host-1 late");
    terminal.resize(50, 12);
    wait_until("it is drawn anew, in twelve lines", || {
        let screen = terminal.screen();
        screen.trim_end().ends_with("q quit") && screen.trim_end().lines().count() == 12
    });
    terminal.keys(&["?"]);
    terminal.until("nuncio top");
    terminal.keys(&["x", "4"]);
    terminal.until("ENDPOINT");
    terminal.keys(&["q"]);
    terminal.until_prompt();
    terminal.line("echo left with $?, and $((1+1)) lines");
    terminal.until("left with 0, and 2 lines");
    terminal.line(&typed(&host.client("top")));
    terminal.until("2 Containers");
    terminal.keys(&["C-c"]);
    terminal.until_prompt();
}

#[test]
fn without_a_terminal_it_is_told_once_and_of_other_hosts_too() {
    let underlay = Underlay::new();
    let [a, b]: [Host; 2] = std::array::from_fn(|_| underlay.host());
    let said = a
        .offline(&format!("init --advertise-addr {}", a.address))
        .ok();
    a.start(&[]);
    let join = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("nuncio join "));
    b.offline(&format!("join {}", join.expect("a command to join by")))
        .ok();
    b.start(&[]);
    for host in [&a, &b] {
        host.load(Image::Busybox);
    }
    b.ok("run -d --name db --expose 80 busybox socat TCP-LISTEN:80,fork,reuseaddr EXEC:cat");
    wait_until("a knows of it", || a.ok("map").contains("db"));
    a.ok("run -d --name web --link db:store busybox sleep 1000");
    let text = a.ok("top");
    for word in [
        "Hosts",
        "Containers",
        "Links",
        "Flows",
        "this host",
        "db",
        "web",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let of = |list: &Value, key: &str, value: &str| {
        let mut items = list.as_array().into_iter().flatten();
        items
            .find(|item| item[key] == value)
            .cloned()
            .unwrap_or_default()
    };
    wait_until("what passes by the link is told", || {
        // Refused until it listens.
        a.nuncio(["exec", "web", "sh", "-c", "echo hello | nc -w 1 store 80"]);
        let json: Value = serde_json::from_str(&a.ok("top --json")).expect("JSON");
        let link = of(&json["links"], "alias", "store");
        let db = of(&json["containers"], "name", "db");
        db["host"] == "host-2"
            && db["pids"].as_f64() >= Some(1.0)
            && link["from"] == "web"
            && link["flows"].as_f64() >= Some(1.0)
    });
    b.kill_daemon();
    let json: Value = serde_json::from_str(&a.ok("top --json")).expect("JSON");
    let silent = of(&json["hosts"], "host", "host-2");
    assert!(
        silent["state"]
            .as_str()
            .is_some_and(|state| state.contains("host-2")),
        "{json}"
    );
    let wrong = a.nuncio("top --once web");
    assert_eq!(wrong.code, 125, "{wrong:?}");
    b.start_again();
}
