//! What a program finds when it is run, and how its end is told.
#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod support;

use anyhow::Result;
use nuncio_runtime::{SpawnError, Ulimit};
use support::{Place, owned};

#[tokio::test]
async fn exit_codes() -> Result<()> {
    let place = Place::new()?;
    assert_eq!(place.run(&place.command(&["true"])).await?.status.code, 0);
    nuncio_runtime::cleanup(&place.run_dir)?;
    let ran = place
        .run(&place.sh("echo out; echo err >&2; exit 3"))
        .await?;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str(), ran.status.code),
        ("out\n", "err\n", 3)
    );
    assert!(ran.status.started_at.unwrap() <= ran.status.finished_at);
    nuncio_runtime::cleanup(&place.run_dir)?;
    let ran = place
        .run(&place.sh("sh -c 'kill -TERM $$'; exit $?"))
        .await?;
    assert_eq!(ran.status.code, 143);
    Ok(())
}

#[tokio::test]
async fn killed_by_a_signal() -> Result<()> {
    let place = Place::new()?;
    let shim = place.start(&place.command(&["sleep", "1000"])).await?;
    shim.signal(9).await?;
    let status = shim.wait().await?;
    assert_eq!(
        (status.code, status.signal, status.oom),
        (137, Some(9), false)
    );
    assert_eq!(shim.wait().await?, status, "it can be asked again");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_executed_is_told_in_dockers_words_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    std::fs::write(place.rootfs.join("etc/plain"), "no program")?;
    for (program, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        (
            "/nope",
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
    ] {
        match place
            .create(&place.command(&[program]))
            .await
            .unwrap_err()
            .downcast::<SpawnError>()?
        {
            SpawnError::Executable(said) => assert_eq!(said, words),
            other => panic!("{program}: {other:?}"),
        }
        assert_eq!(place.cgroups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(place.processes(), Vec::<String>::new());
        assert_eq!(place.mounts(), Vec::<String>::new());
        nuncio_runtime::cleanup(&place.run_dir)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_program_fails_at_start() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new()?;
    let path = place.rootfs.join("bin/nonsense");
    std::fs::write(&path, [0; 100])?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let shim = place.create(&place.command(&["nonsense"])).await?;
    let error = shim.start().await.unwrap_err().to_string();
    assert_eq!(error, "exec /bin/nonsense: exec format error");
    assert_eq!(shim.wait().await?.code, 126);
    Ok(())
}

#[tokio::test]
async fn environment_user_directory_and_name() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("id -u; id -g; id -G; pwd; hostname; echo $A $HOME $HOSTNAME; umask; cat /proc/self/oom_score_adj; ulimit -n");
    spec.env = owned(&["A=b=c d"]);
    spec.user = "web".into();
    spec.cwd = "/made/for/it".into();
    spec.hostname = "box".into();
    spec.oom_score_adj = 77;
    spec.ulimits = vec![Ulimit {
        name: "nofile".into(),
        soft: 321,
        hard: 400,
    }];
    let said = place.run(&spec).await?.succeeded()?;
    assert_eq!(
        said,
        "1000\n1001\n1001 29\n/made/for/it\nbox\nb=c d /home/web box\n0022\n77\n321\n"
    );
    Ok(())
}

#[tokio::test]
async fn signals_are_as_a_program_expects_them() -> Result<()> {
    let place = Place::new()?;
    let grep = place.command(&["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]);
    let said = place.run(&grep).await?.succeeded()?;
    assert_eq!(
        said,
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
    Ok(())
}

#[tokio::test]
async fn no_descriptor_of_ours_is_handed_on() -> Result<()> {
    let place = Place::new()?;
    let said = place.says("ls /proc/self/fd | tr '\\n' ' '").await?;
    assert_eq!(
        said, "0 1 2 3 ",
        "the fourth is the directory that ls reads"
    );
    Ok(())
}

#[tokio::test]
async fn a_directory_of_the_host_is_no_working_directory() -> Result<()> {
    let place = Place::new()?;
    for fd in 3..20 {
        let mut spec = place.command(&["pwd"]);
        spec.cwd = format!("/proc/self/fd/{fd}");
        let error = place.run(&spec).await.unwrap_err().to_string();
        assert!(error.starts_with("chdir to cwd"), "{error}");
        nuncio_runtime::cleanup(&place.run_dir)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_user_reopens_its_standard_streams() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("echo out > /dev/stdout; echo err > /dev/stderr");
    spec.user = "web".into();
    let ran = place.run(&spec).await?;
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    Ok(())
}

#[tokio::test]
async fn init_reaps_orphans_forwards_signals_and_passes_the_code_on() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.sh("(sleep 0 & exec sleep 0.1) & trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.05; done");
    spec.init = Some(support::binary());
    let shim = place.create(&spec).await?;
    let mut attach = shim.attach(support::EVERYTHING).await?;
    shim.start().await?;
    support::expect(&mut attach.output, "up").await?;
    assert_eq!(
        place.exec("cat /proc/1/comm").await?.succeeded()?,
        "docker-init\n"
    );
    // the two sleeps are reaped as soon as they end, by 1 as by nobody else
    let zombies = "for i in $(seq 200); do grep -l '^State:.Z' /proc/[0-9]*/status || exit 0; sleep 0.05; done; exit 1";
    place.exec(zombies).await?.succeeded()?;
    shim.signal(15).await?;
    let ran = support::collect(&shim, &mut attach.output).await?;
    assert_eq!((ran.stdout.as_str(), ran.status.code), ("got\n", 7));
    Ok(())
}

#[tokio::test]
async fn init_looks_for_the_program_before_anything_is_made() -> Result<()> {
    let place = Place::new()?;
    let mut spec = place.command(&["nope"]);
    spec.init = Some(support::binary());
    let error = place.create(&spec).await.unwrap_err().to_string();
    assert_eq!(error, "exec: \"nope\": executable file not found in $PATH");
    Ok(())
}
