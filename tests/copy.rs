//! `cp`, `diff` and `export`, from the real docker client and from nuncio.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use support::{Client, Host, Image, single};

/// A directory with some files for one client.
fn files(host: &Host, client: Client) -> PathBuf {
    let directory = host.scratch().join(format!("files-{client:?}"));
    fs::create_dir_all(directory.join("dir/sub")).expect("make directories");
    fs::write(directory.join("file"), "of the host").expect("write");
    fs::write(directory.join("dir/sub/deep"), "deep").expect("write");
    fs::set_permissions(directory.join("file"), fs::Permissions::from_mode(0o640)).expect("chmod");
    if !directory.join("link").is_symlink() {
        symlink("file", directory.join("link")).expect("link");
    }
    directory
}

#[test]
fn files_go_in_and_come_out() {
    let host = single(&[Image::Busybox]);
    host.ok("create --name stopped -v data:/data busybox true");
    host.ok("run -d --name running -v data:/data busybox sleep 1000");
    for client in Client::ALL {
        let directory = files(&host, client);
        let shell = |line: &str| client.shell(&host, &directory, line);
        for container in ["stopped", "running"] {
            let ok = |line: &str| shell(&line.replace("C:", &format!("{container}:"))).ok();
            let to = directory.join(format!("out-{container}"));
            fs::create_dir(&to).expect("make a directory");
            let out = format!("out-{container}");
            ok("docker cp file C:/etc/");
            ok(&format!("docker cp C:/etc/file {out}"));
            let copy = to.join("file");
            assert_eq!(fs::read_to_string(&copy).expect("copied"), "of the host");
            assert_eq!(fs::metadata(&copy).expect("copied").mode() & 0o777, 0o640);
            ok("docker cp file C:/etc/renamed");
            ok(&format!("docker cp C:/etc/renamed {out}/again"));
            assert_eq!(
                fs::read_to_string(to.join("again")).expect("copied"),
                "of the host"
            );
            // a directory, and what is in it
            ok("docker cp dir C:/srv");
            ok("docker cp dir/. C:/srv");
            ok(&format!("docker cp C:/srv {out}/tree"));
            assert_eq!(
                fs::read_to_string(to.join("tree/sub/deep")).expect("copied"),
                "deep"
            );
            ok(&format!("docker cp C:/srv/. {out}"));
            assert!(to.join("sub/deep").exists());
            // a volume is where the container has it
            ok("docker cp file C:/data/of-the-volume");
            assert_eq!(
                host.ok("run --rm -v data:/d busybox cat /d/of-the-volume"),
                "of the host"
            );
            ok(&format!("docker cp C:/data/of-the-volume {out}/v"));
            // links: themselves, or what they lead to
            ok("docker cp link C:/linked");
            ok(&format!("docker cp C:/linked {out}/l"));
            assert_eq!(
                fs::read_link(to.join("l")).expect("a link"),
                PathBuf::from("file")
            );
            ok("docker cp -L link C:/followed");
            ok(&format!("docker cp C:/followed {out}/f"));
            assert_eq!(
                fs::read_to_string(to.join("f")).expect("copied"),
                "of the host"
            );
            // streams
            ok("tar c dir | docker cp - C:/var");
            let listed = ok("docker cp C:/var/dir - | tar t");
            assert_eq!(listed, "dir/\ndir/sub/\ndir/sub/deep");
        }
        assert_eq!(shell("docker cp file running:/tmp/").stderr, "");
        host.ok("exec running rm -rf /srv /data/of-the-volume /linked /followed");
        host.ok("rm stopped");
        host.ok("create --name stopped -v data:/data busybox true");
    }
}

#[test]
fn what_cannot_be_copied_is_told() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name box --user 65534 -v ro:/ro:ro busybox sleep 1000");
    host.ok("create --name sealed --read-only busybox true");
    for client in Client::ALL {
        let directory = files(&host, client);
        let refused = |line: &str, words: &str| {
            let done = client.shell(&host, &directory, line);
            assert_ne!(done.code, 0, "{line}");
            assert!(done.stderr.contains(words), "{line}: {}", done.stderr);
        };
        refused(
            "docker cp box:/nosuch .",
            "Could not find the file /nosuch in container box",
        );
        refused("docker cp nobody:/etc .", "No such container: nobody");
        refused(
            "docker cp file box:/no/such/place/x",
            "Could not find the file /no/such/place in container box",
        );
        refused("docker cp file box:/new/", "no such directory");
        refused("docker cp dir box:/etc/passwd", "cannot copy directory");
        refused("docker cp box:/etc ./file", "cannot copy directory");
        refused(
            "docker cp box:/etc/passwd absent/x",
            "invalid output path: directory",
        );
        refused(
            "docker cp box:/a box:/b",
            "copying between containers is not supported",
        );
        refused(
            "docker cp file dir",
            "must specify at least one container source",
        );
        refused(
            "docker cp - box:/etc/passwd </dev/null",
            "must be a directory",
        );
        refused(
            "docker cp file box:/ro/x",
            "mounted volume is marked read-only",
        );
        refused(
            "docker cp file sealed:/x",
            "container rootfs is marked read-only",
        );
        if client == Client::Nuncio {
            refused("docker cp box:/dev/null .", "is a device");
        }
        let ok = |line: &str| client.shell(&host, &directory, line).ok();
        // whose the copy is
        fs::set_permissions(directory.join("file"), fs::Permissions::from_mode(0o666))
            .expect("chmod");
        ok("docker cp -a file box:/tmp/mine");
        assert_eq!(host.ok("exec box stat -c %u /tmp/mine"), "65534");
        ok("docker cp file box:/tmp/roots");
        assert_eq!(host.ok("exec box stat -c %u /tmp/roots"), "0");
    }
}

#[test]
fn no_link_of_a_container_leads_to_the_host() {
    let host = single(&[Image::Busybox]);
    let secret = host.scratch().join("secret");
    fs::create_dir(&secret).expect("make a directory");
    fs::write(secret.join("key"), "of the host").expect("write");
    let outside = secret.display();
    let script = format!(
        "ln -s {outside} /abs; ln -s ../../../../../../../..{outside} /up; ln -s /proc/1/root/{outside} /proc-link; \
         mkdir -p /tmp/dir; ln -s / /tmp/dir/root; exec sleep 1000"
    );
    host.ok(["run", "-d", "--name", "box", "busybox", "sh", "-c", &script]);
    for round in ["running", "stopped"] {
        for client in Client::ALL {
            let directory = files(&host, client);
            let run = |line: &str| client.shell(&host, &directory, line);
            for link in ["abs", "up", "proc-link"] {
                let read = run(&format!("docker cp box:/{link}/key stolen"));
                assert_ne!(read.code, 0, "{round} {link}");
                assert!(!directory.join("stolen").exists());
                let written = run(&format!("docker cp file box:/{link}/planted"));
                assert_ne!(written.code, 0, "{round} {link}");
            }
            assert!(!secret.join("planted").exists(), "{round}");
            // names that climb, and links in the archive itself
            let climb = "mkdir -p t; tar cPf climb.tar --transform 's,^file,../../../../../../planted,' file; docker cp - box:/tmp <climb.tar";
            let _ = run(climb);
            assert!(
                !host.scratch().join("planted").exists() && !PathBuf::from("/planted").exists()
            );
            let through = format!(
                "ln -sfn {outside} trap; tar cf trap.tar trap; tar rf trap.tar --transform 's,^file,trap/planted,' file; docker cp - box:/tmp <trap.tar"
            );
            let _ = run(&through);
            assert!(!secret.join("planted").exists(), "{round}");
        }
        host.ok("stop -t 0 box");
    }
}

#[test]
fn a_containers_archive_stays_in_its_directory() {
    let host = single(&[Image::Busybox]);
    // What comes out is written by our client: links that are there lead no further than where it copies to.
    let script = "mkdir -p /d/sub; echo x >/d/sub/file; chmod 4755 /d/sub/file; mknod /d/pipe p; exec sleep 1000";
    host.ok(["run", "-d", "--name", "box", "busybox", "sh", "-c", script]);
    let directory = host.scratch().join("out");
    let elsewhere = host.scratch().join("elsewhere");
    fs::create_dir_all(directory.join("d")).expect("make a directory");
    fs::create_dir(&elsewhere).expect("make a directory");
    symlink(&elsewhere, directory.join("d/sub")).expect("link");
    let run = |line: &str| Client::Nuncio.shell(&host, &directory, line);
    let refused = run("docker cp box:/d .");
    assert_ne!(refused.code, 0, "{refused:?}");
    assert_eq!(fs::read_dir(&elsewhere).expect("readable").count(), 0);
    fs::remove_file(directory.join("d/sub")).expect("remove");
    run("docker cp box:/d .").ok();
    let mode = fs::metadata(directory.join("d/sub/file"))
        .expect("copied")
        .mode();
    assert_eq!(mode & 0o7777, 0o755, "no set-user-ID bit comes along");
}

#[test]
fn a_race_of_links_gets_nowhere() {
    let host = single(&[Image::Busybox]);
    let secret = host.scratch().join("secret");
    fs::create_dir(&secret).expect("make a directory");
    fs::write(secret.join("key"), "of the host").expect("write");
    let script = format!(
        "mkdir /real; echo inside >/real/key; ln -s {} /fake; cp -r /real /a; \
         while :; do mv /a /b; ln -s {} /a; rm /a; mv /b /a; done",
        secret.display(),
        secret.display()
    );
    host.ok([
        "run", "-d", "--name", "racer", "busybox", "sh", "-c", &script,
    ]);
    let directory = files(&host, Client::Nuncio);
    for round in 0..40 {
        let client = Client::ALL[round % 2];
        let _ = client.shell(&host, &directory, "docker cp racer:/a/key got");
        let got = fs::read_to_string(directory.join("got")).unwrap_or_default();
        assert!(!got.contains("of the host"), "round {round}");
        let _ = client.shell(&host, &directory, "docker cp file racer:/a/planted");
        assert!(!secret.join("planted").exists(), "round {round}");
    }
}

#[test]
fn changes_are_listed() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "run",
        "--name",
        "box",
        "-v",
        "/data",
        "busybox",
        "sh",
        "-c",
        "touch /etc/passwd /new /data/x; rm /bin/wget; mkdir /srv2; echo y >/srv2/y",
    ]);
    for client in Client::ALL {
        let changes = client.ok(&host, "diff box");
        let changes: Vec<&str> = changes.lines().collect();
        for expected in [
            "C /bin",
            "D /bin/wget",
            "C /etc",
            "C /etc/passwd",
            "A /new",
            "A /srv2",
            "A /srv2/y",
        ] {
            assert!(
                changes.contains(&expected)
                    || changes.contains(&expected.replace("/bin", "/usr/bin").as_str()),
                "{expected}: {changes:?}"
            );
        }
        let ours = [
            "/etc/hosts",
            "/etc/resolv.conf",
            "/proc",
            "/sys",
            "/dev",
            "/data/x",
        ];
        for path in ours {
            assert!(
                !changes.iter().any(|change| change.ends_with(path)),
                "{path}: {changes:?}"
            );
        }
        assert!(
            client
                .run(&host, "diff nobody")
                .stderr
                .contains("No such container: nobody")
        );
    }
    host.ok("run --name same busybox true");
    assert_eq!(host.ok("diff same"), "");
}

#[test]
fn a_root_is_exported() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name running -v data:/data busybox sh -c true");
    host.ok([
        "run",
        "-d",
        "--name",
        "live",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo made >/made; echo v >/data/v; exec sleep 1000",
    ]);
    support::wait_until("it wrote", || {
        host.nuncio("exec live cat /data/v").code == 0
    });
    for client in Client::ALL {
        let directory = files(&host, client);
        let shell = |line: &str| client.shell(&host, &directory, line).ok();
        shell("docker export -o live.tar live");
        assert_eq!(shell("tar xOf live.tar made"), "made");
        let names = shell("docker export live | tar t");
        assert!(names.lines().any(|name| name == "etc/passwd"), "{names}");
        assert!(names.lines().any(|name| name == "data/"), "{names}");
        assert!(!names.contains("data/v"), "a volume is no part of it");
        shell("docker export running | tar t | grep -x etc/passwd");
        let refused = client.run(&host, "export nobody");
        assert!(
            refused.stderr.contains("No such container: nobody"),
            "{refused:?}"
        );
    }
}
