//! The daemon is killed at each system call by which it changes what lies on disk. The next one starts, finds things as
//! they were before or as they were to become, and once they are removed nothing is left.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::{Host, Image, SOON, Trap, wait_until};

/// The calls that change what lies on disk or is mounted; not each of them is there on every machine.
const CALLS: [&str; 13] = [
    "fsync",
    "fdatasync",
    "?rename",
    "?renameat",
    "renameat2",
    "?mkdir",
    "mkdirat",
    "?rmdir",
    "?unlink",
    "unlinkat",
    "linkat",
    "mount",
    "umount2",
];
/// No operation makes more of one kind.
const MOST: usize = 60;

/// What is done to a host, and what takes it back.
struct Operation<'a> {
    /// Before it, each time.
    prepare: &'a [&'a str],
    run: &'a str,
    /// These may fail, for what they remove may not be there.
    undo: &'a [&'a str],
}

/// A host on which operations are cut off.
struct Scene {
    host: Host,
    /// What there is when nothing was done.
    bare: BTreeSet<String>,
}

impl Scene {
    #[track_caller]
    fn new() -> Self {
        let host = support::Underlay::new().host();
        // What one thread does comes in the order it is written down.
        host.set_daemon_env("TOKIO_WORKER_THREADS", "1");
        host.start(&["--registry", "embedded"]);
        host.load(Image::Busybox);
        host.ok("run --rm busybox true"); // makes what the first container of all makes
        let bare = left(&host);
        Self { host, bare }
    }

    /// Kills the daemon at every point of `operation`.
    #[track_caller]
    fn walk(&self, operation: &Operation<'_>) {
        self.prepare(operation);
        let before = view(&self.host);
        self.host.ok(operation.run);
        let after = view(&self.host);
        self.undo(operation);
        let mut points = 0;
        for call in CALLS {
            for nth in 1..=MOST {
                if !self.cut_off(operation, call, nth, [&before, &after]) {
                    break;
                }
                points += 1;
            }
        }
        println!("{}: cut off at {points} points", operation.run);
        assert!(points > 2, "{}: hardly ever cut off", operation.run);
    }

    /// Whether there was an `nth` call to be killed at.
    #[track_caller]
    fn cut_off(
        &self,
        operation: &Operation<'_>,
        call: &str,
        nth: usize,
        views: [&String; 2],
    ) -> bool {
        let Operation { run, .. } = operation;
        self.prepare(operation);
        let trap = Trap::set(self.host.daemon_pid(), call, nth);
        let done = self.host.nuncio(*run);
        let cut = done.code != 0 || !self.host.daemon_runs();
        drop(trap);
        if !self.host.daemon_runs() {
            self.host.kill_daemon();
            self.host.start_again();
        }
        if cut {
            let found = view(&self.host);
            assert!(
                views.contains(&&found),
                "{run}, killed at {call} {nth}: {found}\nneither {views:#?}\n{done:?}"
            );
        }
        self.undo(operation);
        cut
    }

    #[track_caller]
    fn prepare(&self, operation: &Operation<'_>) {
        for words in operation.prepare {
            self.host.ok(*words);
        }
        // What was answered before the disk had it is to be on its way no more.
        wait_until("all is on the disk", || {
            let found = left(&self.host);
            !found.iter().any(|name| name.ends_with(".pending"))
        });
    }

    /// Removes what the operation made, and sees that nothing else is there.
    #[track_caller]
    fn undo(&self, operation: &Operation<'_>) {
        for words in operation.undo {
            self.host.nuncio(*words);
        }
        // What is large is deleted in the background.
        let deadline = Instant::now() + SOON;
        loop {
            let found = left(&self.host);
            if found == self.bare {
                return;
            }
            let differs: Vec<_> = found.symmetric_difference(&self.bare).collect();
            let run = operation.run;
            assert!(Instant::now() < deadline, "{run}: {differs:#?}");
            sleep(Duration::from_millis(50));
        }
    }
}

/// What a user sees; who has no name of his own is called alike.
fn view(host: &Host) -> String {
    let parts = [
        "ps -a --no-trunc --format {{.Names}}:{{.State}}:{{.Mounts}}",
        "network ls --format {{.Name}}:{{.Driver}}",
        "volume ls --format {{.Name}}",
        "images -a --no-trunc --format {{.Repository}}:{{.Tag}}:{{.ID}}",
    ]
    .map(|words| {
        let shown = host.ok(words);
        let mut lines: Vec<String> = shown.lines().map(without_ids).collect();
        lines.sort_unstable();
        lines.join(" ")
    });
    let memory = host.nuncio("inspect -f {{.HostConfig.Memory}} box").stdout;
    format!("{}\n{memory}", parts.join("\n"))
}

/// With `#` for each run of hexadecimal digits that is an id.
fn without_ids(line: &str) -> String {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    let ids =
        words.filter(|word| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    ids.fold(line.to_owned(), |line, id| line.replace(id, "#"))
}

/// Files and directories that are there for as long as something is, and what else of it the kernel has.
fn left(host: &Host) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in [host.data_root(), host.exec_root()] {
        list(&root, &root, &mut found);
    }
    let book = host.data_root().join("addresses.json");
    let newer = host.data_root().join("addresses.json.pending");
    let book = std::fs::read_to_string(newer).or_else(|_| std::fs::read_to_string(book));
    let book = book.unwrap_or_default();
    let book: serde_json::Value = serde_json::from_str(&book).unwrap_or_default();
    for (network, page) in book["networks"].as_object().into_iter().flatten() {
        let held = page["held"].as_object().into_iter().flatten();
        found.extend(held.map(|(address, owner)| format!("{network} {address} {owner}")));
        found.insert(format!("addresses of {network}"));
    }
    let links = host.ip("-br link");
    found.extend(links.lines().map(|line| {
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }));
    found.extend(
        host.remains()
            .list()
            .into_iter()
            .filter(|line| line.contains(" shim ") || line.starts_with("cgroup")),
    );
    found.extend(
        host.remains()
            .mounts()
            .into_iter()
            .map(|mount| format!("mount {}", mount.display())),
    );
    found
}

fn list(root: &Path, directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        // The mirror of the registry is written as that goes along, and what is in a layer stays with it.
        if name.starts_with("catalog.")
            || name.starts_with("images/layers/") && name.ends_with("/diff")
        {
            continue;
        }
        found.insert(name);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(root, &path, found);
        }
    }
}

#[test]
#[ignore = "takes minutes, and strace may lose track of a daemon that it kills: run it by hand"]
fn a_container_is_made_whole_or_not_at_all() {
    let scene = Scene::new();
    scene.walk(&Operation {
        prepare: &["volume create data"],
        run: "create --name box -v /etc -v data:/data -p 80 busybox sleep 1000",
        undo: &["rm -f -v box", "volume rm data"],
    });
    scene.walk(&Operation {
        prepare: &["create --name box -v /etc busybox true"],
        run: "rm -v box",
        undo: &["rm -f -v box"],
    });
}

#[test]
#[ignore = "takes minutes, and strace may lose track of a daemon that it kills: run it by hand"]
fn a_container_is_changed_or_as_it_was() {
    let scene = Scene::new();
    scene.walk(&Operation {
        prepare: &["create --name box busybox true"],
        run: "rename box other",
        undo: &["rm -f box", "rm -f other"],
    });
    scene.walk(&Operation {
        prepare: &["create --name box busybox true"],
        run: "update --memory 64m box",
        undo: &["rm -f box"],
    });
}

#[test]
#[ignore = "takes minutes, and strace may lose track of a daemon that it kills: run it by hand"]
fn a_network_is_made_and_removed_whole() {
    let scene = Scene::new();
    scene.walk(&Operation {
        prepare: &[],
        run: "network create net",
        undo: &["network rm net"],
    });
    scene.walk(&Operation {
        prepare: &["network create net", "run --rm --network net busybox true"],
        run: "network rm net",
        undo: &["network rm net"],
    });
}

#[test]
#[ignore = "takes minutes, and strace may lose track of a daemon that it kills: run it by hand"]
fn a_volume_is_made_and_removed_whole() {
    let scene = Scene::new();
    scene.walk(&Operation {
        prepare: &[],
        run: "volume create data",
        undo: &["volume rm data"],
    });
    scene.walk(&Operation {
        prepare: &["volume create data", "run --rm -v data:/etc busybox true"],
        run: "volume rm data",
        undo: &["volume rm data"],
    });
}

/// What a client keeps of accounts is as it was, or as it was to become.
#[test]
fn a_client_that_is_killed_keeps_what_it_knows_of_accounts() {
    let host = support::Underlay::new().host();
    let path = host.scratch().join("config.json");
    let before =
        r#"{"auths": {"a.example": {"auth": "YTpi"}, "b.example": {"auth": "Yzpk"}}, "x": 1}"#;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let mut after = parse(before);
    let auths = after["auths"].as_object_mut().expect("accounts");
    auths.remove("a.example");
    let mut killed = 0;
    for call in CALLS {
        for nth in 1..=MOST {
            std::fs::write(&path, before).expect("write what it knows");
            let logout = host.client("logout a.example");
            let (mut child, trap) = Trap::spawn(&logout, call, nth);
            let ended = child.wait().expect("wait for it");
            drop(trap);
            let found = parse(&std::fs::read_to_string(&path).expect("it is there"));
            let whole = [&parse(before), &after].contains(&&found);
            assert!(whole, "killed at {call} {nth}: {found}");
            if ended.success() {
                assert_eq!(found, after);
                break;
            }
            killed += 1;
        }
    }
    assert!(killed > 1, "hardly ever killed");
}
