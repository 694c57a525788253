//! The daemon is killed while it starts: what runs goes on, and the next one finds all of it.

mod support;

use support::{Image, Scene, points, single, view};

/// A daemon that is killed again and again on its way to its first answer.
#[test]
fn what_runs_goes_on() {
    let scene = Scene::new(|host| {
        host.ok("network create net");
        host.ok("volume create data");
        host.ok("run -d --name box -v data:/data -p 80 busybox sleep 1000");
        host.ok("network connect net box");
        host.ok("create --name idle -v /etc busybox true");
    });
    let host = &scene.host;
    let pid = host.ok("inspect -f {{.State.Pid}} box");
    let before = view(host);
    host.kill_daemon();
    host.start_again();
    let calls = host.trap().set(None);
    let mut killed = 0;
    for deadly in points(&calls) {
        host.kill_daemon();
        killed += usize::from(!host.start_into_trap(deadly));
        let calls = host.trap().set(None);
        let point = format!("killed before {deadly}, the last of {calls:#?}");
        host.kill_daemon();
        host.start_again();
        assert_eq!(view(host), before, "{point}");
        assert_eq!(host.ok("inspect -f {{.State.Pid}} box"), pid, "{point}");
        assert_eq!(host.ok("exec box echo inside"), "inside", "{point}");
        scene.is_bare(&point);
    }
    assert!(killed > 2, "hardly ever killed");
}

/// On a machine that never saw one.
#[test]
fn the_first_of_all_is_started_again() {
    let host = single(&[]);
    let forget = || {
        host.crash();
        std::fs::remove_dir_all(host.data_root()).expect("forget everything");
    };
    forget();
    host.set_traps();
    host.start_again();
    let calls = host.trap().set(None);
    let mut killed = 0;
    for deadly in points(&calls) {
        forget();
        killed += usize::from(!host.start_into_trap(deadly));
        host.kill_daemon();
        host.start_again();
        host.ok("network inspect bridge");
    }
    host.load(Image::Busybox);
    host.ok("run --rm busybox true");
    assert!(killed > 2, "hardly ever killed");
}
