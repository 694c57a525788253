//! etcdctl works on the embedded server as on etcd, or is told what there is not.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{PATIENCE, Served};

fn command(address: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .args(["--endpoints", &address.to_string()])
        .args(args)
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end; its outcome and all it said.
async fn finish(address: SocketAddr, args: &[&str], input: &str) -> Result<(bool, String)> {
    let mut child = command(address, args)
        .stderr(Stdio::piped())
        .spawn()
        .context("start etcdctl: install it with `apt-get install etcd-client`")?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

/// One that runs on, line by line.
struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(address: SocketAddr, args: &[&str]) -> Result<Self> {
        let mut child = command(address, args).spawn()?;
        let stdin = child.stdin.take().context("stdin")?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Self {
            child,
            stdin,
            lines,
        })
    }

    async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await??;
        line.context("etcdctl ended")
    }

    /// The next lines, as many as are expected.
    async fn says(&mut self, expected: &[&str]) -> Result<()> {
        for line in expected {
            assert_eq!(&self.line().await?, line);
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does; by SIGTERM, for SIGINT is ignored below a shell's job in the background.
    async fn interrupt(mut self) -> Result<()> {
        let pid = self.child.id().context("it has ended")?;
        let mut kill = Command::new("kill");
        let killed = kill.args(["-TERM", &pid.to_string()]).status().await?;
        ensure!(killed.success(), "kill");
        tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let run = async |args: &[&str]| -> Result<String> {
        let (succeeded, output) = finish(server.address, args, "").await?;
        ensure!(succeeded, "etcdctl {args:?}: {output}");
        Ok(output)
    };
    for (args, expected) in [
        (&["put", "a/1", "one"][..], "OK\n"),
        (&["put", "a/2", "two"], "OK\n"),
        (&["get", "--prefix", "a/"], "a/1\none\na/2\ntwo\n"),
        (&["get", "--prefix", "--keys-only", "a/"], "a/1\n\na/2\n\n"),
        (&["get", "a/1", "a/2"], "a/1\none\n"),
        (&["get", "--from-key", "--limit", "1", "a"], "a/1\none\n"),
        (
            &[
                "get",
                "--prefix",
                "a/",
                "--sort-by",
                "MODIFY",
                "--order",
                "DESCEND",
            ],
            "a/2\ntwo\na/1\none\n",
        ),
        (&["put", "--prev-kv", "a/1", "uno"], "OK\na/1\none\n"),
        (&["get", "--rev", "2", "--prefix", "a/"], "a/1\none\n"),
        (&["put", "--ignore-value", "a/1"], "OK\n"),
        (&["del", "--prev-kv", "a/1"], "1\na/1\nuno\n"),
    ] {
        assert_eq!(run(args).await?, expected, "{args:?}");
    }
    let txn = "value(\"a/2\") = \"two\"\nver(\"a/2\") = \"1\"\n\nput a/3 three\nget a/2\n\nput a/4 four\n\n";
    let (succeeded, output) = finish(server.address, &["txn", "-i"], txn).await?;
    ensure!(
        succeeded && output.contains("SUCCESS\n\nOK\n\na/2\ntwo"),
        "{output}"
    );
    let txn = "create(\"a/3\") = \"0\"\n\nput a/3 drei\n\nput a/4 four\n\n";
    let (succeeded, output) = finish(server.address, &["txn"], txn).await?;
    ensure!(succeeded && output.contains("FAILURE\n\nOK"), "{output}");
    assert_eq!(run(&["del", "--prefix", "a/"]).await?, "3\n");

    let granted = run(&["lease", "grant", "60"]).await?;
    let lease = granted.split_whitespace().nth(1).context("lease id")?;
    run(&["put", "--lease", lease, "leased", "x"]).await?;
    let left = run(&["lease", "timetolive", lease, "--keys"]).await?;
    ensure!(
        left.contains("granted with TTL(60s)") && left.contains("[leased]"),
        "{left}"
    );
    assert!(run(&["lease", "list"]).await?.contains(lease));
    run(&["lease", "keep-alive", "--once", lease]).await?;
    run(&["lease", "revoke", lease]).await?;
    assert_eq!(run(&["get", "leased"]).await?, "");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_of_the_member_and_what_it_lacks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let save = dir.path().join("saved");
    let save = save.to_str().context("path")?;
    for i in 0..3 {
        finish(server.address, &["put", "k", &i.to_string()], "").await?;
    }
    for (args, succeeds, expected) in [
        (&["endpoint", "status"][..], true, "3.4.0"),
        (&["endpoint", "health"], true, "is healthy"),
        (&["endpoint", "hashkv"], true, ", "),
        (&["member", "list"], true, "embedded"),
        (&["alarm", "list"], true, ""),
        (&["compaction", "3"], true, "compacted revision 3"),
        (
            &["compaction", "3"],
            false,
            "required revision has been compacted",
        ),
        (
            &["get", "k", "--rev", "2"],
            false,
            "required revision has been compacted",
        ),
        (
            &["get", "k", "--rev", "9"],
            false,
            "required revision is a future revision",
        ),
        (
            &["snapshot", "save", save],
            false,
            "without snapshots to stream",
        ),
        (
            &["auth", "enable"],
            false,
            "no users and roles, use an etcd cluster",
        ),
        (
            &["user", "list"],
            false,
            "no users and roles, use an etcd cluster",
        ),
        (&["move-leader", "1"], false, "without"),
        (
            &["member", "remove", "1"],
            false,
            "without changes of membership",
        ),
        (&["--user", "me:word", "get", "k"], true, "k\n2\n"),
    ] {
        let (succeeded, output) = finish(server.address, args, "").await?;
        assert_eq!(
            (succeeded, output.contains(expected)),
            (succeeds, true),
            "{args:?}: {output}"
        );
    }
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let run = async |args: &[&str]| finish(server.address, args, "").await;
    run(&["put", "k/1", "old"]).await?;
    let past = ["watch", "--prefix", "--rev", "2", "--prev-kv", "k/"];
    let mut past = Running::start(server.address, &past)?;
    past.says(&["PUT", "k/1", "old"]).await?;
    let mut typed = Running::start(server.address, &["watch", "-i"])?;
    typed
        .stdin
        .write_all(b"watch k/1\nwatch --prefix other/\n")
        .await?;
    run(&["put", "k/1", "new"]).await?;
    run(&["del", "k/1"]).await?;
    past.says(&["PUT", "k/1", "old", "k/1", "new"]).await?;
    past.says(&["DELETE", "k/1", "new", "k/1", ""]).await?;
    past.interrupt().await?;

    // What was typed may be watched only from now on: so it is written until it is told of.
    let mut written = 0;
    let told = loop {
        run(&["put", "other/x", &written.to_string()]).await?;
        written += 1;
        match tokio::time::timeout(
            std::time::Duration::from_millis(300),
            typed.lines.next_line(),
        )
        .await
        {
            Ok(line) => break line?.context("etcdctl ended")?,
            Err(_) if written < 100 => {}
            Err(_) => bail!("nothing was told of {written} changes"),
        }
    };
    assert!(told == "PUT" || told == "DELETE", "{told}");
    typed.interrupt().await?;

    run(&["compaction", "4"]).await?;
    let (succeeded, output) = run(&["watch", "--rev", "2", "k/1"]).await?;
    let expected = "required revision has been compacted";
    ensure!(!succeeded && output.contains(expected), "{output}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elects() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let mut holder = Running::start(server.address, &["lock", "l"])?;
    let key = holder.line().await?;
    ensure!(key.starts_with("l/"), "{key}");
    let waiting = finish(server.address, &["lock", "l", "echo", "held"], "");
    let released = async {
        // Once the second stands in the queue behind it.
        loop {
            let (_, keys) = finish(
                server.address,
                &["get", "--prefix", "l/", "--keys-only"],
                "",
            )
            .await?;
            if keys.matches("l/").count() == 2 {
                return holder.interrupt().await;
            }
        }
    };
    let ((succeeded, output), ()) = tokio::try_join!(waiting, released)?;
    ensure!(succeeded && output.contains("held"), "{output}");

    let mut leader = Running::start(server.address, &["elect", "e", "one"])?;
    let key = leader.line().await?;
    leader.says(&["one"]).await?;
    let mut observer = Running::start(server.address, &["elect", "--listen", "e"])?;
    observer.says(&[&key, "one"]).await?;
    leader.interrupt().await?;
    let mut leader = Running::start(server.address, &["elect", "e", "two"])?;
    let key = leader.line().await?;
    leader.says(&["two"]).await?;
    observer.says(&[&key, "two"]).await?;
    observer.interrupt().await?;
    leader.interrupt().await?;

    // A lease that is kept alive outlasts its time, and ends once nobody does.
    let (_, granted) = finish(server.address, &["lease", "grant", "2"], "").await?;
    let lease = granted.split_whitespace().nth(1).context("lease id")?;
    let mut keeper = Running::start(server.address, &["lease", "keep-alive", lease])?;
    for _ in 0..4 {
        let line = keeper.line().await?;
        ensure!(line.contains("keepalived with TTL(2)"), "{line}");
    }
    keeper.interrupt().await?;
    let mut list = String::from(lease);
    while list.contains(lease) {
        (_, list) = finish(server.address, &["lease", "list"], "").await?;
    }
    server.stop().await
}
