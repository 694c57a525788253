//! Forwards a port: `cargo run --example forward -- tcp://127.0.0.1:8080 tcp://example.org:80`.

use std::sync::Arc;
use std::time::Duration;

use nuncio_ambassador::{Ambassador, Control, Options, Resolver, spec};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, to] = arguments.as_slice() else {
        anyhow::bail!("give a listener and its upstream, as in tcp://127.0.0.1:8080 tcp://host:80");
    };
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    let control = Control::new(ambassador.clone(), Resolver::new());
    control.put(vec![spec::from_urls(listen, to)?]).await?;
    for bound in ambassador.listeners() {
        println!("{} listens on {}", bound.name, bound.local);
    }
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for flow in ambassador.flows() {
            let (path, reason) = (flow.datapath.name(), flow.reason);
            let (sent, got) = (flow.bytes_in, flow.bytes_out);
            println!(
                "{} -> {}: {sent} in, {got} out, {path}: {reason}",
                flow.client, flow.upstream
            );
        }
    }
}
