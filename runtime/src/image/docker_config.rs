//! What Docker writes into an image's configuration beyond what the OCI specification knows.

use serde::Deserialize;
use serde_json::Value;

/// Docker's additions to an image's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DockerConfig {
    /// What was said of the image when it was made.
    pub comment: String,
    /// The version of the engine that made it.
    pub docker_version: String,
    /// How to tell whether a container is well, as Docker's JSON has it.
    pub healthcheck: Option<Value>,
    /// Instructions for images that are built on it.
    pub on_build: Vec<String>,
    /// The shell of instructions that name none.
    pub shell: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outer {
    comment: Option<String>,
    docker_version: Option<String>,
    config: Option<Inner>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inner {
    healthcheck: Option<Value>,
    on_build: Option<Vec<String>>,
    shell: Option<Vec<String>>,
}

impl DockerConfig {
    /// Reads a configuration's JSON. What does not look as Docker writes it is nothing of Docker's.
    pub(crate) fn read(content: &[u8]) -> Self {
        let outer: Outer = serde_json::from_slice(content).unwrap_or_default();
        let inner = outer.config.unwrap_or_default();
        Self {
            comment: outer.comment.unwrap_or_default(),
            docker_version: outer.docker_version.unwrap_or_default(),
            healthcheck: inner.healthcheck.filter(|check| !check.is_null()),
            on_build: inner.on_build.unwrap_or_default(),
            shell: inner.shell.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_docker_adds_is_read_and_what_is_not_its_own_is_nothing() {
        let content = json!({"comment": "c", "docker_version": "20.10", "os": "linux",
            "config": {"Healthcheck": {"Test": ["NONE"]}, "OnBuild": null, "Shell": ["/bin/ash"]}});
        let expected = DockerConfig {
            comment: "c".to_owned(),
            docker_version: "20.10".to_owned(),
            healthcheck: Some(json!({"Test": ["NONE"]})),
            on_build: Vec::new(),
            shell: vec!["/bin/ash".to_owned()],
        };
        assert_eq!(DockerConfig::read(content.to_string().as_bytes()), expected);
        for other in ["", "[]", "{}", r#"{"comment":7}"#, r#"{"config":null}"#] {
            assert_eq!(
                DockerConfig::read(other.as_bytes()),
                DockerConfig::default()
            );
        }
    }
}
