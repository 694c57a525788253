//! Volumes, from the real docker client and from nuncio.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use support::{Client, Host, Image, single, wait_until};

/// Where a container's mount at `target` comes from.
#[track_caller]
fn source(host: &Host, container: &str, target: &str) -> String {
    field(host, container, target, "Source")
}

/// A field of a container's mount at `target`.
#[track_caller]
fn field(host: &Host, container: &str, target: &str, name: &str) -> String {
    let format = format!(
        "{{{{range .Mounts}}}}{{{{if eq .Destination \"{target}\"}}}}{{{{.{name}}}}}{{{{end}}}}{{{{end}}}}"
    );
    host.docker(["inspect", "-f", &format, container]).ok()
}

#[test]
fn named_volumes_outlive_their_containers() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let ok = |words: &str| client.ok(&host, words);
        assert_eq!(ok("volume create --label a=b data"), "data");
        assert_eq!(
            ok("volume create data"),
            "data",
            "a second time it is the same"
        );
        ok("run --rm -v data:/data busybox touch /data/kept");
        assert_eq!(ok("run --rm -v data:/d busybox ls /d"), "kept");
        assert_eq!(ok("run --rm --mount src=data,dst=/d busybox ls /d"), "kept");
        let read_only = client.run(&host, "run --rm -v data:/d:ro busybox touch /d/x");
        assert!(
            read_only.stderr.contains("Read-only file system"),
            "{read_only:?}"
        );
        assert_eq!(ok("volume ls -q"), "data");
        assert_eq!(
            ok("volume ls -q --filter label=a=b --filter name=dat"),
            "data"
        );
        assert_eq!(ok("volume ls -q --filter label=c"), "");
        assert_eq!(ok("volume ls -q --filter driver=nfs"), "");
        assert_eq!(
            ok("volume ls --format {{.Driver}}/{{.Name}}/{{.Scope}}"),
            "local/data/local"
        );
        assert_eq!(
            ok("volume inspect -f {{.Name}}|{{.Driver}}|{{.Labels.a}} data"),
            "data|local|b"
        );
        assert_eq!(ok("inspect -f {{.Name}} data"), "data");
        let mountpoint = ok("volume inspect -f {{.Mountpoint}} data");
        assert_eq!(
            fs::metadata(format!("{mountpoint}/kept"))
                .expect("kept")
                .uid(),
            0
        );

        let id = ok("create -v data:/data --name holder busybox");
        let refused = client.run(&host, "volume rm data").refused(1);
        assert!(
            refused.contains(&format!("remove data: volume is in use - [{id}]")),
            "{refused}"
        );
        assert_eq!(ok("volume ls -q -f dangling=true"), "");
        ok("rm -v holder");
        assert_eq!(
            ok("volume ls -q -f dangling=true"),
            "data",
            "it has a name, so it stays"
        );
        assert_eq!(ok("volume rm data"), "data");
        let refused = client.run(&host, "volume rm data").refused(1);
        assert!(refused.contains("get data: no such volume"), "{refused}");
        ok("volume rm -f data");
        assert!(!fs::exists(&mountpoint).expect("looked"), "{mountpoint}");
    }
}

#[test]
fn anonymous_volumes_go_with_the_last_container() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let ok = |words: &str| client.ok(&host, words);
        ok("run --rm -v /data busybox true");
        assert_eq!(ok("volume ls -q"), "", "--rm takes it along");

        ok("run -d --name dbdata -v /dbdata busybox true");
        let name = field(&host, "dbdata", "/dbdata", "Name");
        assert_eq!(name.len(), 64);
        ok("run --name second --volumes-from dbdata busybox touch /dbdata/of-second");
        ok("run --name third --volumes-from second:ro busybox ls /dbdata/of-second");
        assert_eq!(field(&host, "third", "/dbdata", "RW"), "false");
        assert_eq!(field(&host, "third", "/dbdata", "Name"), name);
        ok("rm -v dbdata");
        ok("rm -v second");
        assert_eq!(ok("volume ls -q"), name, "third still has it");
        ok("rm -v third");
        assert_eq!(ok("volume ls -q"), "");

        ok("create --name left -v /data busybox");
        ok("rm left");
        assert_eq!(ok("volume ls -q").len(), 64, "without -v it stays");
        ok("volume create named");
        let pruned = ok("volume prune -f");
        assert!(pruned.contains("Total reclaimed space: 0B"), "{pruned}");
        assert_eq!(ok("volume ls -q"), "named");
        ok("volume prune -af");
        assert_eq!(ok("volume ls -q"), "");
    }
}

#[test]
fn new_volumes_get_what_the_image_has() {
    let host = single(&[Image::Busybox, Image::Redis]);
    for client in Client::ALL {
        let ok = |words: &str| client.ok(&host, words);
        // the image says VOLUME /data, which is redis's own
        ok("create --name cache redis");
        let data = source(&host, "cache", "/data");
        assert_eq!(fs::metadata(&data).expect("made").uid(), 999);
        assert_eq!(
            client
                .ok(
                    &host,
                    ["inspect", "-f", "{{json .Config.Volumes}}", "cache"]
                )
                .replace(' ', ""),
            "{\"/data\":{}}"
        );
        ok("rm -v cache");
        assert!(!fs::exists(&data).expect("looked"));

        assert_eq!(
            ok("run --rm -v etc:/etc busybox cat /etc/passwd"),
            ok("run --rm busybox cat /etc/passwd")
        );
        assert_eq!(
            ok("run --rm -v etc:/x busybox cat /x/passwd"),
            ok("run --rm busybox cat /etc/passwd")
        );
        assert_eq!(
            ok("run --rm -v bare:/usr/lib:nocopy busybox ls /usr/lib"),
            ""
        );
        assert_eq!(
            ok("run --rm --mount src=bare2,dst=/usr/lib,volume-nocopy busybox ls /usr/lib"),
            ""
        );
        let refused = client.run(&host, "run --rm -v /etc/passwd busybox true");
        assert_eq!(refused.code, 125, "{refused:?}");
        assert!(
            refused
                .stderr
                .contains("cannot mount volume over existing file, file exists /etc/passwd"),
            "{refused:?}"
        );
        assert_eq!(ok("volume ls -q"), "bare\nbare2\netc");
        ok("volume rm bare bare2 etc");
    }
}

#[test]
fn files_and_directories_of_the_host() {
    let host = single(&[Image::Busybox]);
    let directory = host.scratch().join("shared");
    fs::create_dir_all(directory.join("below")).expect("make a directory");
    fs::write(directory.join("file"), "of the host").expect("write a file");
    let path = directory.display().to_string();
    for client in Client::ALL {
        let run = |args: &[&str]| client.ok(&host, args);
        let file = format!("{path}/file:/etc/one:ro");
        assert_eq!(
            run(&["run", "--rm", "-v", &file, "busybox", "cat", "/etc/one"]),
            "of the host"
        );
        let mount = format!("type=bind,source={path},target=/m,readonly");
        assert_eq!(
            run(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/m"]),
            "below\nfile"
        );
        let line = "docker run --rm -v ./below:/b busybox touch /b/made";
        client.shell(&host, &directory, line).ok();
        assert!(directory.join("below/made").exists());
        let line = "docker run --rm -v \"$(pwd)\":/b -w /b busybox ls below";
        assert_eq!(client.shell(&host, &directory, line).ok(), "made");
        fs::remove_file(directory.join("below/made")).expect("remove");
        let absent = format!("{path}-{client:?}/made");
        run(&[
            "run",
            "--rm",
            "-v",
            &format!("{absent}:/x"),
            "busybox",
            "true",
        ]);
        assert!(fs::metadata(&absent).expect("-v makes it").is_dir());
        let mount = format!("type=bind,source={path}/absent,target=/m");
        let refused = client.run(&host, ["run", "--rm", "--mount", &mount, "busybox", "true"]);
        let words = format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {path}/absent"
        );
        assert!(refused.stderr.contains(&words), "{refused:?}");
        assert_eq!(refused.code, 125);
        let tmpfs = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700";
        assert!(
            run(&[
                "run",
                "--rm",
                "--mount",
                tmpfs,
                "busybox",
                "sh",
                "-c",
                "df -k /t; stat -c %a /t"
            ])
            .contains("1024")
        );
    }
    let refused = |args: &str| Client::Nuncio.run(&host, args).stderr;
    assert!(
        refused("run --rm -v a/b:/x busybox true")
            .contains("includes invalid characters for a local volume name")
    );
    assert!(
        refused("run --rm -v xx:/x -v yy:/x busybox true").contains("Duplicate mount point: /x")
    );
    assert!(refused("run --rm -v xx:/x:rw,ro busybox true").contains("invalid mode: rw,ro"));
    assert!(
        refused("volume create -d nfs data")
            .contains("error looking up volume plugin nfs: plugin \"nfs\" not found")
    );
    assert!(refused("volume create a").contains("create a: volume name is too short"));
    assert!(
        refused("volume create --opt type=nfs --opt device=:/x --opt o=addr=1 data")
            .contains("not built: local volumes of type \"nfs\"")
    );
}

#[test]
fn the_recipes_for_backup_and_restore() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let directory = host.scratch().join(format!("backup-{client:?}"));
        fs::create_dir(&directory).expect("make a directory");
        let run = |line: &str| client.shell(&host, &directory, line).ok();
        run(
            "docker run -v /dbdata --name dbdata busybox sh -c 'echo precious >/dbdata/file; chown 7:8 /dbdata/file'",
        );
        run(
            "docker run --rm --volumes-from dbdata -v $(pwd):/backup busybox tar cvf /backup/backup.tar /dbdata",
        );
        run("docker run -v /dbdata --name dbdata2 busybox true");
        run(
            "docker run --rm --volumes-from dbdata2 -v $(pwd):/backup busybox sh -c \"cd /dbdata && tar xvf /backup/backup.tar --strip 1\"",
        );
        let restored = source(&host, "dbdata2", "/dbdata") + "/file";
        assert_eq!(
            fs::read_to_string(&restored).expect("restored"),
            "precious\n"
        );
        assert_eq!(fs::metadata(&restored).expect("restored").uid(), 7);
        run("docker rm -v dbdata dbdata2");
        assert_eq!(run("docker volume ls -q"), "");
    }
}

#[test]
fn volumes_of_the_local_driver_with_options() {
    let host = single(&[Image::Busybox]);
    let directory = host.scratch().join("elsewhere");
    fs::create_dir(&directory).expect("make a directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("open it");
    let device = format!("device={}", directory.display());
    for client in Client::ALL {
        let ok = |words: &str| client.ok(&host, words);
        client.ok(
            &host,
            [
                "volume",
                "create",
                "--opt",
                "type=none",
                "--opt",
                "o=bind",
                "--opt",
                &device,
                "bound",
            ],
        );
        ok("run --rm -v bound:/b busybox touch /b/made");
        assert!(directory.join("made").exists());
        fs::remove_file(directory.join("made")).expect("remove");
        ok("volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m memory");
        ok("run -d --name one -v memory:/m busybox true");
        ok("run -d --name two -v memory:/m busybox sleep 1000");
        ok("exec two touch /m/made");
        assert_eq!(
            ok("run --rm -v memory:/m busybox ls /m"),
            "made",
            "two holds it"
        );
        ok("rm -f one two");
        assert_eq!(ok("run --rm -v memory:/m busybox ls /m"), "");
        ok("volume rm bound memory");
        assert!(directory.exists(), "what it showed stays");
    }
}

#[test]
fn a_killed_daemon_leaves_whole_volumes() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name keeper -v kept:/k -v /anonymous busybox sleep 1000");
    host.ok("exec keeper touch /k/file");
    host.kill_daemon();
    let volumes = host.data_root().join("volumes");
    fs::create_dir_all(volumes.join(".new-cut/_data")).expect("a create that was cut off");
    fs::create_dir_all(volumes.join("kept/part/half")).expect("a copy that was cut off");
    host.start_again();
    assert!(!volumes.join(".new-cut").exists() && !volumes.join("kept/part").exists());
    wait_until("the container is found again", || {
        host.nuncio("exec keeper ls /k/file").code == 0
    });
    assert_eq!(host.ok("volume ls -q").lines().count(), 2);
    host.ok("rm -f -v keeper");
    assert_eq!(host.ok("volume ls -q"), "kept");
    assert_eq!(host.ok("run --rm -v kept:/k busybox ls /k"), "file");
}
