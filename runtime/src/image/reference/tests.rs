#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn what_is_left_out_is_filled_in_as_docker_does() {
    for (typed, full, familiar) in [
        ("redis", "docker.io/library/redis:latest", "redis:latest"),
        ("redis:7", "docker.io/library/redis:7", "redis:7"),
        (
            "someone/thing",
            "docker.io/someone/thing:latest",
            "someone/thing:latest",
        ),
        (
            "index.docker.io/redis",
            "docker.io/library/redis:latest",
            "redis:latest",
        ),
        (
            "docker.io/library/redis:7",
            "docker.io/library/redis:7",
            "redis:7",
        ),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        (
            "localhost:5000/a/b:1",
            "localhost:5000/a/b:1",
            "localhost:5000/a/b:1",
        ),
        (
            "localhost:5000",
            "docker.io/library/localhost:5000",
            "localhost:5000",
        ),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        (
            "ghcr.io/a__b/c-d--e.f",
            "ghcr.io/a__b/c-d--e.f:latest",
            "ghcr.io/a__b/c-d--e.f:latest",
        ),
    ] {
        let reference: Reference = typed.parse().unwrap();
        assert_eq!(reference.to_string(), full, "{typed}");
        assert_eq!(reference.familiar(), familiar, "{typed}");
    }
}

#[test]
fn a_digest_stands_in_for_the_tag() {
    let reference: Reference = format!("redis@{DIGEST}").parse().unwrap();
    assert_eq!(reference.tag(), None);
    assert_eq!(reference.familiar(), format!("redis@{DIGEST}"));
    let both: Reference = format!("redis:7@{DIGEST}").parse().unwrap();
    assert_eq!((both.tag(), both.digest().is_some()), (Some("7"), true));
    assert_eq!(both.tagged().unwrap().familiar(), "redis:7");
}

#[test]
fn a_wrong_name_is_named_with_what_would_be_right() {
    for (typed, problem) in [
        ("", "the name is empty"),
        ("redis:", "the tag \"\" must be"),
        ("redis:-x", "the tag \"-x\" must be"),
        ("Redis", "repository name (library/Redis) must be lowercase"),
        ("localhost:5000/A", "repository name (A) must be lowercase"),
        ("a//b", "the part \"\" must be"),
        ("a/../b", "the part \"..\" must be"),
        ("a..b", "the part \"a..b\" must be"),
        ("a___b", "the part \"a___b\" must be"),
        ("-a", "the part \"-a\" must be"),
        ("host.:80/x", "\"host.:80\" is not a registry"),
        ("host:99999/x", "\"host:99999\" is not a registry"),
        ("[::zz]/x", "\"[::zz]\" is not a registry"),
        ("redis@sha256:12", "the digest \"sha256:12\" must be"),
        ("redis@", "the digest \"\" must be"),
        ("a b", "the part \"a b\" must be"),
        (&DIGEST["sha256:".len()..], "an image's ID, not a name"),
        (&"a".repeat(256), "more than 255 bytes"),
    ] {
        let error = typed.parse::<Reference>().unwrap_err().to_string();
        assert!(error.starts_with("invalid reference format: "), "{error}");
        assert!(error.contains(problem), "{typed}: {error}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,80}") {
        let _ = text.parse::<Reference>();
    }

    #[test]
    fn both_written_forms_read_back_as_the_same_name(
        registry in proptest::option::of("(localhost|[a-z]{1,5}\\.[a-z]{2,3}|127\\.0\\.0\\.1)(:[1-9][0-9]{0,3})?"),
        path in "[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?(/[a-z0-9]{1,6}(__|--)[a-z]{1,3}){0,2}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digested in any::<bool>(),
    ) {
        let mut text = registry.map(|r| format!("{r}/")).unwrap_or_default() + &path;
        if let Some(tag) = &tag {
            text.push_str(&format!(":{tag}"));
        }
        if digested {
            text.push_str(&format!("@{DIGEST}"));
        }
        let reference: Reference = text.parse().unwrap();
        prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
        prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        prop_assert!(reference.tag().is_some() || reference.digest().is_some());
    }
}
