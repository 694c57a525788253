//! Runs the `nft` binary, which alone knows how to compile rules.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Why the nft table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The binary is not there, or does not run.
    #[error("run nft (install the package nftables if it is missing)")]
    Run(#[source] io::Error),
    /// It ran too long.
    #[error("nft {command} did not end within {} s", LIMIT.as_secs())]
    Slow {
        /// Its arguments.
        command: String,
    },
    /// It refused.
    #[error("nft {command} failed: {message}")]
    Refused {
        /// Its arguments.
        command: String,
        /// What it wrote to standard error.
        message: String,
    },
}

/// A batch takes milliseconds; this much means that the machine is in trouble.
const LIMIT: Duration = Duration::from_secs(20);

/// All rules of this network namespace, as JSON.
pub(crate) async fn list_all() -> Result<String, NftError> {
    run("-j list ruleset", "").await
}

/// The tables' rules as the kernel has them, without those that are not there; `None` if none is.
pub(crate) async fn list(tables: &[&str]) -> Result<Option<String>, NftError> {
    let mut found = None;
    for table in tables {
        let arguments = format!("-s list table {table}");
        if let Some(rules) = absent_is_none(run(&arguments, "").await)? {
            found.get_or_insert_with(String::new).push_str(&rules);
        }
    }
    Ok(found)
}

/// One table with its counters, as JSON; `None` if it is not there.
pub(crate) async fn list_json(table: &str) -> Result<Option<String>, NftError> {
    absent_is_none(run(&format!("-j list table {table}"), "").await)
}

fn absent_is_none(listed: Result<String, NftError>) -> Result<Option<String>, NftError> {
    match listed {
        Ok(text) => Ok(Some(text)),
        Err(NftError::Refused { message, .. }) if message.contains("No such file") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Applies a batch in one transaction.
pub(crate) async fn apply(batch: &str) -> Result<(), NftError> {
    run("-f -", batch).await.map(drop)
}

async fn run(arguments: &str, input: &str) -> Result<String, NftError> {
    let mut child = Command::new("nft")
        .args(arguments.split(' '))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Run)?;
    let stdin = child.stdin.take();
    let feed = async {
        match stdin {
            Some(mut stdin) => stdin.write_all(input.as_bytes()).await,
            None => Ok(()),
        }
    };
    let ended = timeout(LIMIT, async {
        tokio::join!(feed, child.wait_with_output())
    })
    .await;
    let (fed, output) = ended.map_err(|_| NftError::Slow {
        command: arguments.to_owned(),
    })?;
    let output = output.map_err(NftError::Run)?;
    if !output.status.success() {
        return Err(NftError::Refused {
            command: arguments.to_owned(),
            message: String::from_utf8_lossy(&output.stderr)
                .trim()
                .replace('\n', "; "),
        });
    }
    fed.map_err(NftError::Run)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
