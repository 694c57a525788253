//! The tree of commands, from arguments to what clap makes of them.

use super::*;

fn normal(line: &str) -> Vec<String> {
    let mut command = Cli::command();
    command.build();
    grammar::normalise(&command, line.split(' ').map(str::to_owned).collect())
}

fn parse(line: &str) -> Result<Cli, String> {
    let mut root = Cli::command();
    root.build();
    let normal = normal(line);
    let args = std::iter::once("nuncio".to_owned()).chain(normal.iter().cloned());
    let (command, _) = usage::command_of(&root, &normal);
    Cli::try_parse_from(args).map_err(|error| usage::message(&error, &root, command))
}

fn wrong(line: &str) -> String {
    parse(line).expect_err(line)
}

#[test]
fn the_tree_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn flags_end_at_the_image() {
    assert_eq!(
        normal("run -d redis -p 1 --rm"),
        ["run", "-d", "--", "redis", "-p", "1", "--rm"]
    );
    assert_eq!(
        normal("run -it --name x redis sh -- -c"),
        ["run", "-it", "--name=x", "--", "redis", "sh", "--", "-c"]
    );
    assert_eq!(normal("run -- redis -d"), ["run", "--", "redis", "-d"]);
    assert_eq!(
        normal("-H unix:///s exec -e A=1 web ls -l"),
        [
            "--host=unix:///s",
            "exec",
            "--env=A=1",
            "--",
            "web",
            "ls",
            "-l"
        ]
    );
    assert_eq!(
        normal("container run -ti a -x"),
        ["container", "run", "-ti", "--", "a", "-x"]
    );
    assert_eq!(normal("rm web -f"), ["rm", "web", "-f"]);
    // These create what has no command.
    assert_eq!(
        normal("network create mesh -d overlay"),
        ["network", "create", "mesh", "--driver=overlay"]
    );
}

#[test]
fn values_and_switches_as_docker_takes_them() {
    assert_eq!(
        normal("run -itp80:80 a"),
        ["run", "-it", "--publish=80:80", "--", "a"]
    );
    assert_eq!(
        normal("run -e=A --memory-swap -1 a"),
        ["run", "--env=A", "--memory-swap=-1", "--", "a"]
    );
    assert_eq!(
        normal("run --rm=false -d=true --init=1 a"),
        ["run", "-d", "--init", "--", "a"]
    );
    assert_eq!(normal("run --rm=maybe a"), ["run", "--rm=maybe", "--", "a"]);
    assert_eq!(
        normal("run --sig-proxy=false a"),
        ["run", "--sig-proxy=false", "--", "a"]
    );
    assert_eq!(normal("stop -t -1 a"), ["stop", "--timeout=-1", "a"]);
    assert_eq!(normal("run --name"), ["run", "--name"]);
}

#[test]
fn long_flags_had_a_single_dash_once() {
    assert_eq!(
        normal("run -d -name x -link db:redis -expose 1 -rm a -name b"),
        [
            "run",
            "-d",
            "--name=x",
            "--link=db:redis",
            "--expose=1",
            "--rm",
            "--",
            "a",
            "-name",
            "b"
        ]
    );
    assert_eq!(
        normal("run -name=x -dns 1.1.1.1 a"),
        ["run", "--name=x", "--dns=1.1.1.1", "--", "a"]
    );
    assert_eq!(normal("ps -notrunc"), ["ps", "--no-trunc"]);
    assert_eq!(normal("run -e -name a"), ["run", "--env=-name", "--", "a"]);
    // not a flag of this command, so a cluster it is
    assert_eq!(normal("kill -rm a"), ["kill", "-rm", "a"]);
    assert_eq!(normal("daemon -name"), ["daemon", "-name"]);
}

#[test]
fn what_comes_after_the_image_is_the_containers() {
    let cli = parse("run --link a:b -d redis redis-cli -h redis ping").expect("a command");
    let text = format!("{:?}", cli.command);
    assert!(
        text.contains(r#"command: ["redis-cli", "-h", "redis", "ping"]"#),
        "{text}"
    );
    assert!(text.contains("detach: true"), "{text}");
}

#[test]
fn wrong_flags_are_told_in_dockers_words() {
    let starts = [
        (
            "run -p abc redis",
            r#"invalid argument "abc" for "-p, --publish" flag: invalid containerPort: abc"#,
        ),
        (
            "run -p x:80 redis",
            r#"invalid argument "x:80" for "-p, --publish" flag: invalid hostPort: x"#,
        ),
        (
            "run --link a:b:c redis",
            r#"invalid argument "a:b:c" for "--link" flag: bad format for links: a:b:c"#,
        ),
        (
            "run -e =x redis",
            r#"invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x"#,
        ),
        (
            "run -m much redis",
            r#"invalid argument "much" for "-m, --memory" flag: invalid size: 'much'"#,
        ),
        (
            "run Redis",
            "invalid reference format: repository name (Redis) must be lowercase",
        ),
        ("run a@b", "invalid reference format"),
        ("run --nope redis", "unknown flag: --nope"),
        ("run --nam x redis", "unknown flag: --nam"),
        ("run", "missing argument: <IMAGE>"),
        ("run --name", "flag needs an argument: --name"),
        (
            "run --pull sometimes redis",
            r#"invalid argument "sometimes" for "--pull" flag: expected always, missing, never"#,
        ),
        ("rnu redis", "unknown command: rnu"),
        (
            "-H ssh://1.2.3.4 ps",
            r#"invalid argument "ssh://1.2.3.4" for "-H, --host" flag: "ssh://1.2.3.4": a daemon on another machine"#,
        ),
        ("exec web", "missing argument: <COMMAND>"),
    ];
    for (line, expected) in starts {
        let message = wrong(line);
        assert!(message.starts_with(expected), "{line}: {message}");
        assert!(!message.contains('\n'), "{line}: {message}");
    }
}

#[test]
fn wrong_arguments_have_dockers_exit_status() {
    let mut root = Cli::command();
    root.build();
    for (line, expected) in [
        ("rnu", 1),
        ("network rnu", 1),
        ("run", 1),
        ("run Redis", 125),
        ("run --nope redis", 125),
        ("run -p x:80 redis", 125),
        ("pull localhost:5000/Team/tools", 1),
        ("pull a b", 1),
        ("ps --nope", 125),
        ("-H tcp://1.2.3.4:0 ps", 125),
        ("exec web", 1),
    ] {
        let normal = normal(line);
        let args = std::iter::once("nuncio".to_owned()).chain(normal.iter().cloned());
        let error = Cli::try_parse_from(args).expect_err(line);
        let (command, _) = usage::command_of(&root, &normal);
        assert_eq!(usage::exit_code(&error, &root, command), expected, "{line}");
    }
}

#[test]
fn the_command_is_named_where_to_read_on() {
    let mut root = Cli::command();
    root.build();
    let path = |line: &str| usage::command_of(&root, &normal(line)).1;
    assert_eq!(path("run -p abc redis"), "nuncio run");
    assert_eq!(
        path("-H unix:///s container run -p abc ps"),
        "nuncio container run"
    );
    assert_eq!(path("nope"), "nuncio");
}

#[test]
fn docker_habits_are_taken() {
    for line in [
        "run -d -p 6379:6379 --link redis-server:redis --name redis_ambassador nuncio/ambassador",
        "run -i --rm --net mesh --net-alias c -h host redis",
        "ps -aq --no-trunc",
        "ps -n -1",
        "container ls -a",
        "container rm -fv a b",
        "image ls",
        "image rm a",
        "logs -ft --tail 10 a",
        "logs -n -1 a",
        "network create -d overlay --subnet 10.9.0.0/16 mesh",
        "kill -s HUP a",
        "inspect -f {{.Id}} a b",
        "top a -ef",
        "exec -it a sh -c x",
        "load -i f.tar",
        "ambassador 10.0.0.1 6379",
        "ambassador --names --admin unix:///s",
        "daemon --icc=false --registry http://a:2379 --default-address-pool 10.0.0.0/8,24",
        "completion bash",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn flags_of_ours_that_contradict_each_other() {
    for line in [
        "ambassador a",
        "ambassador --listen tcp://1.2.3.4:5",
        "ambassador --names",
        "daemon --vxlan-port 0",
    ] {
        wrong(line);
    }
}
