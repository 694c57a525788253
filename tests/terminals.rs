//! People at terminals: sizes, ctrl-c, and leaving a container to come back to it, with both clients and docker-compose.

mod support;

use support::{Host, Image, NOTHING, Project, Terminal, everything, single, typed, wait_until};

/// A shell that begins its lines with `prompt`. One of busybox's own asks the terminal at each prompt where the cursor
/// is, and the answer comes among what is typed, or to whoever reads the terminal next.
fn shell(prompt: &str) -> String {
    format!(
        "sh -c 'trap : INT; while printf \"{prompt}>_\" && read -r line; do eval \"$line\"; done'"
    )
}

/// Puts both clients to the test at a terminal each, on one host.
fn with_both(test: impl Fn(&Host, &Terminal, &dyn Fn(&str) -> String)) {
    let host = single(&[Image::Busybox]);
    let terminal = Terminal::new(200, 30);
    test(&host, &terminal, &|words| typed(&host.client(words)));
    host.ok("rm -f box");
    let terminal = Terminal::new(200, 30);
    test(&host, &terminal, &|words| typed(&host.docker_client(words)));
}

#[test]
fn the_size_follows_and_ctrl_c_is_the_processes() {
    with_both(|_, terminal, client| {
        let run = client("run -it --name box busybox");
        terminal.line(&format!("{run} {}", shell("inside")));
        terminal.until("\ninside>_");
        terminal.line("echo size is $(stty size)");
        terminal.until("size is 30 200");
        terminal.resize(160, 24);
        terminal
            .line("while [ \"$(stty size)\" != '24 160' ]; do sleep 0.05; done; echo it follows");
        terminal.until("\nit follows");
        terminal.line("echo begins; sleep 1000; echo code $?, and goes on");
        terminal.until("\nbegins");
        terminal.keys(&["C-c"]);
        terminal.until("^Ccode 130, and goes on"); // as the terminal echoes it
        terminal.line("exit 7");
        terminal.until_prompt();
        terminal.line("echo left with $?");
        terminal.until("\nleft with 7");
    });
}

#[test]
fn a_user_leaves_and_comes_back() {
    with_both(|host, terminal, client| {
        let run = client("run -it --name box busybox");
        terminal.line(&format!("{run} {}", shell("inside")));
        terminal.until("\ninside>_");
        terminal.line("place=kept");
        terminal.keys(&["C-p", "C-q"]);
        terminal.until_prompt();
        terminal.line("echo left with $?");
        terminal.until("\nleft with 0");
        assert_eq!(host.ok("inspect -f {{.State.Running}} box"), "true");

        terminal.line(&client("attach --detach-keys ctrl-a,d box"));
        wait_until("it is attached", || {
            terminal.line("echo still $place");
            terminal.screen().contains("\nstill kept")
        });
        terminal.keys(&["C-a", "d"]);
        terminal.until_prompt();
        terminal.line("echo left $((1+1)) times");
        terminal.until("\nleft 2 times");

        let exec = client("exec -it --detach-keys ctrl-x box");
        terminal.line(&format!("{exec} {}", shell("other")));
        terminal.until("\nother>_");
        terminal.line("tty; echo in $((40+2))");
        terminal.until("\nin 42");
        terminal.keys(&["C-x"]);
        terminal.until_prompt();
        terminal.line("echo out $((2+1)) times");
        terminal.until("\nout 3 times");

        terminal.line(&client("attach box"));
        wait_until("it is attached again", || {
            terminal.line("echo yet $place");
            terminal.screen().contains("\nyet kept")
        });
        terminal.line("exit 9");
        terminal.until_prompt();
        terminal.line("echo over with $?");
        terminal.until("\nover with 9");
    });
}

#[test]
fn without_a_terminal_signals_are_passed_on_and_input_is_not_taken() {
    let host = single(&[Image::Busybox]);
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.02; done";
    for (name, docker) in [("ours", false), ("theirs", true)] {
        host.ok([
            "run", "-d", "-i", "--name", name, "busybox", "sh", "-c", script,
        ]);
        wait_until("it has its trap", || {
            host.ok(["logs", name]).contains("ready")
        });
        let words = ["attach", "--no-stdin", name];
        let attached = match docker {
            true => host.spawn_docker(words),
            false => host.spawn(words),
        };
        // An attached client is one that the container's events tell of.
        wait_until("it is attached", || {
            let words = [
                "events",
                "--since",
                "1",
                "--until",
                "0s",
                "-f",
                "event=attach",
                "-f",
                &format!("container={name}"),
                "--format",
                "{{.Action}}",
            ];
            !host.ok(words).is_empty()
        });
        let pid = nix::unistd::Pid::from_raw(attached.pid().try_into().expect("a process id"));
        // One alone: at the third of them a client gives up, and that says 1 or 130.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("interrupt it");
        let attached = attached.finish();
        assert_eq!(attached.code, 3, "{name}: {attached:?}");
        assert!(attached.stdout.contains("caught"), "{name}: {attached:?}");
    }
}

/// People at a terminal: `run` and `exec` are given its size and its keys, and ctrl-c ends `up` with all it shows.
#[track_caller]
fn at_a_terminal(program: &'static str) {
    let host = single(&[Image::Busybox]);
    let project = Project::new(&host, program, "foreground.yml");
    let terminal = Terminal::new(200, 30);
    let type_in = |words: &str| {
        let mut command = project.command(words);
        command.env("COMPOSE_INTERACTIVE_NO_CLI", "1");
        terminal.line(&typed(&command));
    };
    type_in("run --rm --no-deps -e PS1=inside>_ job sh");
    terminal.until("\ninside>_");
    terminal.line("echo size is $(stty size)");
    terminal.until("size is 30 200");
    terminal.resize(160, 24);
    terminal.line("while [ \"$(stty size)\" != '24 160' ]; do sleep 0.05; done; echo it follows");
    terminal.until("\nit follows");
    // What is to be interrupted says itself that it runs: before, the shell would be.
    terminal.line("sh -c 'echo it sleeps; exec sleep 1000'; echo not reached");
    terminal.until("\nit sleeps");
    terminal.keys(&["C-c"]);
    terminal.line("exit 7");
    terminal.until_prompt();
    terminal.line("echo left with $?");
    terminal.until("\nleft with 7");
    assert_eq!(everything(&host)[0], [] as [&str; 0]);

    type_in("up --no-color server");
    terminal.until("| the server serves");
    let other = project.spawn("exec -T server sh -c tty");
    assert!(other.finish().stdout.contains("not a tty"));
    terminal.keys(&["C-c"]);
    terminal.until_prompt();
    assert_eq!(host.ok("ps -q"), "");
    project.ok("start server");
    type_in("exec -e PS1=there>_ server sh");
    terminal.until("\nthere>_");
    terminal.line("exit 4");
    terminal.until_prompt();
    terminal.line("echo out with $?");
    terminal.until("\nout with 4");
    project.ok("down -t 0");
    assert_eq!(everything(&host), NOTHING);
}

#[test]
fn the_first_compose_is_used_at_a_terminal() {
    at_a_terminal("docker-compose-1");
}

#[test]
fn the_second_compose_is_used_at_a_terminal() {
    at_a_terminal("docker-compose-2");
}
