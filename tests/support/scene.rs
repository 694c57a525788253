//! A host whose daemon is killed in the middle of what it is told to do.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Host, Image, SOON, Underlay, wait_until};

/// How many points of one operation are walked through, unless [`ALL`] is in the environment.
const MOST: usize = 8;
/// Set it to walk through each point of each operation, which takes a quarter of an hour.
const ALL: &str = "NUNCIO_CRASH_ALL";

/// What is done to a host, and what takes it back.
#[derive(Default)]
pub(crate) struct Operation<'a> {
    /// Before it, each time.
    pub(crate) prepare: &'a [&'a str],
    pub(crate) run: &'a str,
    /// If it has two steps: a command that is the first of them, alone.
    pub(crate) first_step: Option<&'a str>,
    /// After it, each time: then there is as much as before `prepare`.
    pub(crate) undo: &'a [&'a str],
}

/// A host on which operations are cut off.
pub(crate) struct Scene {
    pub(crate) host: Host,
    /// What there is when nothing was done.
    bare: BTreeSet<String>,
}

impl Scene {
    /// One with busybox, and what `prepare` makes.
    #[track_caller]
    pub(crate) fn new(prepare: impl FnOnce(&Host)) -> Self {
        let host = Underlay::new().host();
        host.set_traps();
        // What one thread does comes in the order it is written down.
        host.set_daemon_env("TOKIO_WORKER_THREADS", "1");
        host.start(&["--registry", "embedded"]);
        host.load(Image::Busybox);
        host.ok("run --rm busybox true"); // makes what the first container of all makes
        prepare(&host);
        settle(&host);
        let bare = left(&host);
        Self { host, bare }
    }

    /// Kills the daemon at the points of `operation`.
    ///
    /// The next one finds things as they were before or as they were to become. In the first case the operation succeeds
    /// when it is repeated; once it is undone nothing is left of it.
    #[track_caller]
    pub(crate) fn walk(&self, operation: &Operation<'_>) {
        let began = Instant::now();
        let Operation { run, .. } = operation;
        let mut views = Vec::new();
        self.prepare(operation);
        if let Some(step) = operation.first_step {
            self.host.ok(step);
            views.push(view(&self.host));
            self.host.ok(*run);
            self.undo(operation);
            self.prepare(operation);
        }
        views.push(view(&self.host));
        let calls = self.calls(run);
        views.push(view(&self.host));
        self.undo(operation);
        self.prepare(operation);
        let again = self.calls(run);
        self.undo(operation);
        // What the daemon did by itself meanwhile was counted, too: the shorter one has less of that.
        let calls = std::cmp::min_by_key(calls, again, Vec::len);
        let points = points(&calls);
        let mut cut_off = 0;
        for &deadly in &points {
            cut_off += usize::from(self.cut_off(operation, deadly, &views));
        }
        println!(
            "{run}: {cut_off} of {} points in {:?}",
            calls.len(),
            began.elapsed()
        );
        assert!(cut_off > 1, "{run}: hardly ever cut off");
    }

    /// The calls that the daemon makes while `run` is done.
    #[track_caller]
    fn calls(&self, run: &str) -> Vec<String> {
        self.host.trap().set(None);
        self.host.ok(run);
        settle(&self.host);
        self.host.trap().set(None)
    }

    /// Whether the daemon got as far as call number `deadly`.
    #[track_caller]
    fn cut_off(&self, operation: &Operation<'_>, deadly: usize, views: &[String]) -> bool {
        let Operation { run, .. } = operation;
        self.prepare(operation);
        let trap = self.host.trap();
        trap.set(Some(deadly));
        let done = self.host.nuncio(*run);
        wait_until("all is on the disk, or the daemon dead", || {
            !self.host.daemon_runs() || !is_pending(&self.host)
        });
        let calls = trap.set(None);
        let cut = calls.len() == deadly;
        if cut {
            self.host.kill_daemon();
            self.host.start_again();
            let point = format!("{run}, killed before {deadly}, the last of {calls:#?}\n{done:?}");
            self.find(run, views, &point);
        } else {
            done.ok();
        }
        self.undo(operation);
        cut
    }

    /// Sees what the daemon before this one left, and brings the operation to its end.
    #[track_caller]
    fn find(&self, run: &str, views: &[String], point: &str) {
        let found = view(&self.host);
        assert!(
            views.contains(&found),
            "{point}: {found}\nis none of {views:#?}"
        );
        let after = views.last().expect("there is one");
        if found != *after {
            let again = self.host.nuncio(run);
            assert_eq!(again.code, 0, "{point}: and then {again:?}");
            assert_eq!(view(&self.host), *after, "{point}: and then repeated");
        }
    }

    #[track_caller]
    fn prepare(&self, operation: &Operation<'_>) {
        for words in operation.prepare {
            self.host.ok(*words);
        }
        // What was answered before the disk had it is to be on its way no more.
        settle(&self.host);
    }

    /// Removes what the operation made, and sees that nothing else is there.
    #[track_caller]
    fn undo(&self, operation: &Operation<'_>) {
        for words in operation.undo {
            self.host.ok(*words);
        }
        self.is_bare(operation.run);
    }

    /// Sees that nothing is there but what was when the scene was made.
    #[track_caller]
    pub(crate) fn is_bare(&self, after: &str) {
        // What is large is deleted in the background.
        let deadline = Instant::now() + SOON;
        loop {
            let found = left(&self.host);
            if found == self.bare {
                return;
            }
            let differs: Vec<_> = found.symmetric_difference(&self.bare).collect();
            assert!(Instant::now() < deadline, "{after}: {differs:#?}");
            sleep(Duration::from_millis(20));
        }
    }
}

/// The numbers of those calls at which a daemon is killed.
///
/// Of calls of one kind in a row these are the first and one in the middle; of those then, so many that it takes no longer
/// than a test may. Operations differ in how many they have, so not always the same ones are left out.
pub(crate) fn points(calls: &[String]) -> Vec<usize> {
    if std::env::var_os(ALL).is_some() {
        return (1..=calls.len()).collect();
    }
    let kind = |call: &String| call.split(' ').next().map(str::to_owned);
    let mut first = 0;
    let mut chosen = Vec::new();
    for row in calls.chunk_by(|one, other| kind(one) == kind(other)) {
        chosen.push(first + 1);
        if row.len() > 1 {
            chosen.push(first + 1 + row.len() / 2);
        }
        first += row.len();
    }
    let stride = chosen.len().div_ceil(MOST).max(1);
    chosen
        .into_iter()
        .skip(calls.len() % stride)
        .step_by(stride)
        .collect()
}

fn settle(host: &Host) {
    wait_until("all is on the disk", || !is_pending(host));
}

fn is_pending(host: &Host) -> bool {
    left(host).iter().any(|name| name.ends_with(".pending"))
}

/// What a user sees; who has no name of his own is called alike.
pub(crate) fn view(host: &Host) -> String {
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
    let fields = "{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.Memory}} {{range $name, $_ := .NetworkSettings.Networks}} {{$name}}{{end}}";
    let parts = parts.join("\n");
    let one = host.nuncio(["inspect", "-f", fields, "box"]).stdout;
    format!("{parts}\n{one}")
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
