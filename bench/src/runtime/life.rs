//! A container's life by an engine's API: made, started, ended and removed.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::http::Engine;
use super::time_runs;

/// Has containers of `image` without a network live as often as asked for, each until it is gone.
pub(crate) fn run(socket: &Path, image: &str, command: &[String], runs: usize) -> Result<()> {
    let mut engine = Engine::connect(socket)?;
    let mut waiter = Engine::connect(socket)?;
    let wanted = json!({
        "Image": image,
        "Cmd": command,
        "HostConfig": { "AutoRemove": true, "NetworkMode": "none" },
    });
    time_runs(runs, || {
        let made = engine.post("/containers/create", Some(&wanted))?;
        let id = made["Id"].as_str().context("no id")?;
        waiter.send(&format!("/containers/{id}/wait?condition=removed"), None)?;
        let head = waiter.head()?;
        engine.post(&format!("/containers/{id}/start"), None)?;
        let ended = waiter.body(&head)?;
        ensure!(ended["StatusCode"] == 0, "it ended with {ended}");
        Ok(())
    })
}
