//! Further processes in a container that runs.
#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod support;

use anyhow::Result;
use nuncio_runtime::{ExecSpec, ShimError, SpawnError};
use support::{EVERYTHING, Place, collect, owned};
use tokio::io::AsyncWriteExt;

fn exec(args: &[&str]) -> ExecSpec {
    ExecSpec {
        args: owned(args),
        ..ExecSpec::default()
    }
}

#[tokio::test]
async fn it_joins_every_namespace_and_cgroup() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("mkdir /tmp/mark; exec sleep 1000");
    spec.hostname = "box".into();
    let shim = place.start(&spec).await?;
    let ran = place
        .exec("hostname; ls -d /tmp/mark; cat /proc/1/comm; echo $$ >&2; exit 5")
        .await?;
    assert_eq!(
        (ran.stdout.as_str(), ran.status.code),
        ("box\n/tmp/mark\nsleep\n", 5)
    );
    let namespaces = "for ns in pid mnt uts ipc net cgroup; do readlink /proc/$PID/ns/$ns; done";
    let init = place
        .exec(&namespaces.replace("$PID", "1"))
        .await?
        .succeeded()?;
    let own = place
        .exec(&namespaces.replace("$PID", "self"))
        .await?
        .succeeded()?;
    assert_eq!(init, own);

    let inside = exec(&["sleep", "1000"]);
    let sleeper = place.prepare_exec(&inside).await?;
    sleeper.start().await?;
    let groups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let (first, second) = (
        shim.state().await?.pid.unwrap(),
        sleeper.state().await?.pid.unwrap(),
    );
    let first = groups(first)?;
    assert_eq!(first, groups(second)?);
    let own = format!("/nuncio-test/{}", place.id);
    for line in first.lines().filter(|line| !line.contains("name=")) {
        assert!(line.ends_with(&own), "{line}");
    }
    sleeper.signal(15).await?;
    assert_eq!(sleeper.wait().await?.code, 143);
    assert!(shim.state().await?.pid.is_some(), "the container goes on");
    Ok(())
}

#[tokio::test]
async fn it_is_confined_as_the_container_is() -> Result<()> {
    let place = Place::new()?;
    let _shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let lines = "grep -E '^(CapBnd|CapEff|Seccomp):' /proc/$PID/status";
    let init = place.exec(&lines.replace("$PID", "1")).await?.succeeded()?;
    let own = place
        .exec(&lines.replace("$PID", "self"))
        .await?
        .succeeded()?;
    assert_eq!(init, own);
    assert_eq!(
        own,
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n"
    );
    assert_ne!(place.exec("unshare -U true").await?.status.code, 0);

    let privileged = ExecSpec {
        privileged: true,
        ..exec(&["grep", "CapBnd", "/proc/self/status"])
    };
    let bounding = place.run_exec(&privileged).await?.succeeded()?;
    let ours = std::fs::read_to_string("/proc/self/status")?;
    assert_eq!(
        Some(bounding.trim_end()),
        ours.lines().find(|line| line.starts_with("CapBnd"))
    );
    Ok(())
}

#[tokio::test]
async fn user_directory_and_environment() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.command(&["sleep", "1000"]);
    (spec.user, spec.cwd) = ("web".into(), "/tmp".into());
    let _shim = place.start(&spec).await?;
    let show = ["sh", "-c", "id -u; id -G; pwd; echo $A $HOME"];
    assert_eq!(
        place.run_exec(&exec(&show)).await?.succeeded()?,
        "1000\n1001 29\n/tmp\n\n"
    );
    let other = ExecSpec {
        user: "root".into(),
        cwd: "/etc".into(),
        env: owned(&["A=1"]),
        ..exec(&show)
    };
    assert_eq!(
        place.run_exec(&other).await?.succeeded()?,
        "0\n0\n/etc\n1 /root\n"
    );
    let missing = ExecSpec {
        cwd: "/nope".into(),
        ..exec(&show)
    };
    let error = place.run_exec(&missing).await.unwrap_err().to_string();
    assert_eq!(error, "chdir to cwd (\"/nope\"): no such file or directory");
    Ok(())
}

#[tokio::test]
async fn input_and_terminal() -> Result<()> {
    let place = Place::new()?;
    let _shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let cat = place
        .prepare_exec(&ExecSpec {
            open_stdin: true,
            ..exec(&["cat"])
        })
        .await?;
    let mut attach = cat.attach(EVERYTHING).await?;
    cat.start().await?;
    attach.input.write_all(b"through\n").await?;
    attach.input.shutdown().await?;
    assert_eq!(
        collect(&cat, &mut attach.output).await?.succeeded()?,
        "through\n"
    );

    let spec = ExecSpec {
        tty: true,
        open_stdin: true,
        ..exec(&["sh", "-c", "read go; tty; stty size"])
    };
    let shell = place.prepare_exec(&spec).await?;
    shell.resize(90, 20).await?;
    let mut attach = shell.attach(EVERYTHING).await?;
    shell.start().await?;
    attach.input.write_all(b"\r").await?;
    let said = collect(&shell, &mut attach.output).await?.stdout;
    assert!(
        said.contains("/dev/pts/") && said.ends_with("20 90\r\n"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn what_it_leaves_in_the_background_is_not_waited_for() -> Result<()> {
    let place = Place::new()?;
    let _shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let ran = place.exec("sleep 1000 & echo done").await?;
    assert_eq!((ran.stdout.as_str(), ran.status.code), ("done\n", 0));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_executed_is_told_in_dockers_words() -> Result<()> {
    let place = Place::new()?;
    let _shim = place.start(&place.command(&["sleep", "1000"])).await?;
    for (program, words, code) in [
        (
            "nope",
            "exec: \"nope\": executable file not found in $PATH",
            127,
        ),
        (
            "/nope",
            "exec: \"/nope\": stat /nope: no such file or directory",
            127,
        ),
        ("/etc", "exec: \"/etc\": is a directory", 126),
    ] {
        let shim = place.prepare_exec(&exec(&[program])).await?;
        match shim.start().await.unwrap_err() {
            ShimError::Executable(said) => assert_eq!(said, words),
            other => panic!("{program}: {other:?}"),
        }
        assert_eq!(shim.wait().await?.code, code);
    }
    Ok(())
}

#[tokio::test]
async fn a_container_that_does_not_run_takes_none() -> Result<()> {
    let place = Place::new()?;
    let shim = place.create(&place.command(&["sleep", "1000"])).await?;
    let refused = |error: anyhow::Error| match error.downcast::<SpawnError>().unwrap() {
        SpawnError::NotRunning(said) => {
            assert_eq!(said, format!("container {} is not running", place.id));
        }
        other => panic!("{other:?}"),
    };
    refused(place.exec("true").await.unwrap_err());
    shim.start().await?;
    let late = place.prepare_exec(&exec(&["true"])).await?;
    shim.signal(9).await?;
    shim.wait().await?;
    refused(place.exec("true").await.unwrap_err());
    assert_eq!(late.wait().await?.code, 137, "nobody can start it any more");
    Ok(())
}

#[tokio::test]
async fn it_ends_with_the_container() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    let inside = place.prepare_exec(&exec(&["sleep", "1000"])).await?;
    inside.start().await?;
    shim.signal(9).await?;
    assert_eq!(inside.wait().await?.code, 137);
    Ok(())
}

/// A container has many of them in its life, such as for its health.
#[tokio::test]
async fn it_leaves_nothing_where_the_container_is_kept() -> Result<()> {
    let place = Place::new()?;
    place.start(&place.sh("exec sleep 1000")).await?;
    let kept = || -> Result<Vec<_>> {
        let mut found = Vec::new();
        let mut directories = vec![place.run_dir.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    let before = kept()?;
    place.exec("true").await?.succeeded()?;
    let on_terminal = ExecSpec {
        tty: true,
        ..exec(&["true"])
    };
    place.run_exec(&on_terminal).await?.succeeded()?;
    assert_eq!(kept()?, before);
    Ok(())
}
