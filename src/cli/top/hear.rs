//! Asking all hosts, each second, what they have to say; none is waited for by the others.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::rows::{HostSays, Snapshot, Told};
use crate::cli::hosts::{HostName, hosts, words};
use crate::client::Client;

/// How long a host may take for each of its answers.
const PATIENCE: Duration = Duration::from_secs(8);
/// After which one that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// What is heard of all hosts.
pub(super) struct Hearing {
    snapshot: Snapshot,
    news: mpsc::Receiver<(String, Told)>,
    _asking: JoinSet<()>,
}

impl Hearing {
    /// Begins to ask.
    ///
    /// # Errors
    ///
    /// If the daemon does not say which hosts there are.
    pub(super) async fn begin(client: &Client) -> anyhow::Result<Self> {
        let hosts = hosts(client).await?;
        let (sender, news) = mpsc::channel(64);
        let mut asking = JoinSet::new();
        let names = hosts.iter().map(|host| host.name.clone()).collect();
        for host in hosts {
            asking.spawn(ask(client.clone(), host, sender.clone()));
        }
        Ok(Self {
            snapshot: Snapshot {
                hosts: names,
                ..Snapshot::default()
            },
            news,
            _asking: asking,
        })
    }

    /// What is known when a host has said something new. May be given up and called again.
    pub(super) async fn next(&mut self) -> Snapshot {
        match self.news.recv().await {
            Some((host, told)) => drop(self.snapshot.told.insert(host, told)),
            None => std::future::pending().await,
        }
        self.snapshot.clone()
    }

    /// What is known when each host has answered, or has not in time.
    pub(super) async fn once(&mut self) -> Snapshot {
        while self.snapshot.told.len() < self.snapshot.hosts.len() {
            self.next().await;
        }
        self.snapshot.clone()
    }
}

/// Tells what a host says, again and again.
async fn ask(client: Client, host: HostName, sender: mpsc::Sender<(String, Told)>) {
    loop {
        let Err(error) = hear(&client, &host, &sender).await else {
            return; // nobody wants to know
        };
        let told = Err(words(&host.name, &error));
        if sender.send((host.name.clone(), told)).await.is_err() {
            return;
        }
        sleep(AGAIN).await;
    }
}

async fn hear(
    client: &Client,
    host: &HostName,
    sender: &mpsc::Sender<(String, Told)>,
) -> anyhow::Result<()> {
    let stats = host.get(client, "/nuncio/v1/stats").flag("stream", true);
    let mut stats = stats.send().await?.lines();
    // The first has nothing that it could be compared with.
    let mut is_first = true;
    loop {
        let Ok(line) = timeout(PATIENCE, stats.next_json::<Value>()).await else {
            bail!("nothing was heard of it for {PATIENCE:?}");
        };
        let Some(line) = line? else {
            bail!("nothing more is heard of it");
        };
        if let Some(error) = line["error"].as_str() {
            bail!("{error}");
        }
        let get = async |path: &str| {
            let answer = async { anyhow::Ok(host.get(client, path).send().await?.json().await?) };
            let answer = timeout(PATIENCE, answer).await;
            answer.unwrap_or_else(|_| bail!("no answer within {PATIENCE:?}"))
        };
        let map = get("/nuncio/v1/map").await?;
        if std::mem::replace(&mut is_first, false) {
            continue;
        }
        // Where the ambassador has nothing to do, it may not be there.
        let flows = get("/nuncio/v1/flows").await.unwrap_or_default();
        let says = HostSays {
            stats: line,
            map,
            flows,
        };
        if sender.send((host.name.clone(), Ok(says))).await.is_err() {
            return Ok(());
        }
    }
}
