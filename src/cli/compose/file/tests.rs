//! Files as they are found in the wild, and what is wrong with others.

use super::*;
use crate::corpus::try_all;

fn parse(text: &str) -> Result<Project, Wrong> {
    let look_up = |name: &str| (name == "SET").then(|| "set".to_owned());
    let node = tree(
        &[("f.yml", text.to_owned())],
        Some(&look_up),
        &mut Vec::new(),
    )?;
    decode(node)
}

fn wrong(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn is_a_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match parse(&text) {
        Ok(project) => {
            let look_up = |_: &str| None;
            let node = tree(
                &[("f.yml", text.into_owned())],
                Some(&look_up),
                &mut Vec::new(),
            );
            let mut shown = String::new();
            if let Ok(node) = node {
                show::write(&node.value, 0, &mut shown);
                // What is shown says the same.
                let again = tree(&[("shown", shown.clone())], None, &mut Vec::new());
                let again = again
                    .and_then(decode)
                    .unwrap_or_else(|error| panic!("{error}: {shown}"));
                assert_eq!(again.services.len(), project.services.len(), "{shown}");
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().starts_with("f.yml:"), "{error}");
            assert!(!error.what.is_empty());
            false
        }
    }
}

#[test]
fn files_are_taken_or_refused() {
    try_all("compose", is_a_file);
}

#[test]
fn what_is_wrong_has_file_line_and_key() {
    let of = |line: &str| format!("services:\n  web:\n    image: x\n    {line}\n");
    for (text, expected) in [
        (
            "services:\n  web:\n    imagee: x\n",
            "f.yml:3: services.web Additional property imagee is not allowed",
        ),
        (
            "servces: {}\n",
            "f.yml:1: (root) Additional property servces is not allowed",
        ),
        (
            &of("ports: [\"80:x\"]"),
            "f.yml:4: services.web.ports: invalid containerPort: x",
        ),
        (
            &of("ports: 80"),
            "f.yml:4: services.web.ports must be a list, and is a number",
        ),
        (
            &of("tty: maybe"),
            "f.yml:4: services.web.tty must be true or false, and is \"maybe\"",
        ),
        (
            &of("stop_grace_period: soon"),
            "f.yml:4: services.web.stop_grace_period: invalid duration \"soon\"",
        ),
        (
            &of("deploy: {replicas: many}"),
            "f.yml:4: services.web.deploy.replicas must be a whole number, and is \"many\"",
        ),
        (
            &of("deploy: {mode: many}"),
            "f.yml:4: services.web.deploy.mode: \"many\" is none: expected one of replicated",
        ),
        (
            &of("deploy: {resources: {limits: {memory: much}}}"),
            "f.yml:4: services.web.deploy.resources.limits.memory: invalid size: 'much'",
        ),
        (
            &of("volumes: [\"a:b\"]"),
            "f.yml:4: services.web.volumes: invalid spec: a:b",
        ),
        (
            &of("command: \"a 'b\""),
            "f.yml:4: services.web.command: a quotation mark is missing",
        ),
        (
            &of("extends: {service: y}"),
            "f.yml:4: services.web.extends: `extends` is not built",
        ),
        (
            &of("environment: 5"),
            "f.yml:4: services.web.environment must be a mapping or a list of NAME=VALUE",
        ),
        (
            &of("hostname: ${"),
            "f.yml:4: invalid interpolation format: \"${\"",
        ),
        (
            &of("hostname: ${X:?say it}"),
            "f.yml:4: invalid interpolation format: required variable X is missing a value: say it",
        ),
        (
            &of("healthcheck: {test: [a, b]}"),
            "f.yml:4: services.web.healthcheck.test: a list must begin with NONE, CMD or CMD-SHELL",
        ),
        (
            "secrets:\n  a: {}\n",
            "f.yml:2: secrets.a: expected one of file, environment and content",
        ),
        (
            "services: [a]\n",
            "f.yml:1: services must be a mapping, and is a list",
        ),
    ] {
        let message = wrong(text);
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn a_later_file_goes_before() {
    let base = "services:\n  web:\n    image: nginx:1\n    command: [a]\n    environment: [A=1, B=1]\n    ports: ['80:80']\n    labels: {x: '1'}\n  old: {image: y}\n";
    let over = "services:\n  web:\n    image: nginx:2\n    command: [b]\n    environment: {B: 2, C: 3}\n    ports: ['81:81', '80:80']\n  new: {image: z}\n";
    let files = [("a.yml", base.to_owned()), ("b.yml", over.to_owned())];
    let node = tree(&files, Some(&|_| None), &mut Vec::new()).expect("files");
    let project = decode(node).expect("a project");
    let web = &project.services["web"];
    assert_eq!(
        web.image.as_ref().map(ToString::to_string).as_deref(),
        Some("nginx:2")
    );
    assert_eq!(web.command, Some(vec!["b".to_owned()]));
    let text = |name: &str| web.environment[name].clone().unwrap_or_default();
    assert_eq!(["A", "B", "C"].map(text), ["1", "2", "3"]);
    assert_eq!(web.ports.len(), 2);
    assert_eq!(
        project.services.keys().collect::<Vec<_>>(),
        ["new", "old", "web"]
    );
    let wrong = [
        ("a.yml", base.to_owned()),
        ("b.yml", "services:\n  web: {imagee: x}\n".to_owned()),
    ];
    let error = tree(&wrong, Some(&|_| None), &mut Vec::new()).expect_err("a wrong file");
    assert!(error.to_string().starts_with("b.yml:2: "), "{error}");
}

#[test]
fn keys_that_only_some_do_something_about_are_noted() {
    let text = "services:\n  web: {image: x, build: ., links: [a], restart: always, container_name: w, x-own: 1}\n";
    let project = parse(text).expect("a file");
    assert_eq!(
        project.services["web"].given,
        ["build", "container_name", "links", "restart"]
    );
}
