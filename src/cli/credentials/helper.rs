//! A program that keeps secrets, `docker-credential-NAME`, spoken to by its standard input and output.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;

/// What helpers say when they have no such secret.
const NOT_FOUND: &str = "credentials not found";

pub(super) struct Helper {
    program: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

impl Helper {
    /// # Errors
    ///
    /// A name that is more than a name.
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        if name.contains(['/', '\0']) {
            bail!("invalid credential helper {name:?}: expected a name without a path");
        }
        Ok(Self {
            program: format!("docker-credential-{name}"),
        })
    }

    /// The user and the secret at `server`.
    pub(super) fn get(&self, server: &str) -> anyhow::Result<Option<(String, String)>> {
        let Some(text) = self.run("get", server)? else {
            return Ok(None);
        };
        let found: Secret = serde_json::from_slice(&text)
            .map_err(|_| anyhow::anyhow!("{} get: its answer is no credential", self.program))?;
        Ok(Some((found.username, found.secret)))
    }

    pub(super) fn store(&self, server: &str, user: &str, secret: &str) -> anyhow::Result<()> {
        let entry = json!({"ServerURL": server, "Username": user, "Secret": secret});
        self.run("store", &entry.to_string()).map(drop)
    }

    pub(super) fn erase(&self, server: &str) -> anyhow::Result<()> {
        self.run("erase", server).map(drop)
    }

    /// What it answers; nothing if it has no such secret.
    fn run(&self, action: &str, input: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let program = &self.program;
        let mut child = Command::new(program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run the credential helper {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // one that does not read says why it ended
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .with_context(|| format!("wait for {program}"))?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        bail!("{program} {action}: {}: {}", output.status, said.trim())
    }
}
