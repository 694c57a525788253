//! An ambassador's HTTP side, and one who asks it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Control, EndpointSet, Options, Resolver, admin};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::openmetrics::{self, Samples};
use super::soon;

pub struct Admin {
    pub control: Arc<Control>,
    pub address: SocketAddr,
}

pub async fn admin() -> Result<Admin> {
    let ambassador = Arc::new(Ambassador::new(Options::default()));
    let resolver = Resolver::new().with_services(|name, _port| match name {
        "known" => Ok(EndpointSet::fixed(vec![([127, 0, 0, 1], 9).into()])),
        other => Err(format!("{other} has never been announced").into()),
    });
    let control = Arc::new(Control::new(ambassador, resolver));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = admin::router(control.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(Admin { control, address })
}

impl Admin {
    pub fn ambassador(&self) -> &Ambassador {
        self.control.ambassador()
    }

    /// Sends a request; what comes back is still to be read.
    pub async fn send(&self, method: &str, path: &str, body: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }

    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let (status, _, body) = self.whole(method, path, body).await?;
        Ok((status, body))
    }

    /// Status, head and body.
    pub async fn whole(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(u16, String, String)> {
        let mut stream = self.send(method, path, body).await?;
        let mut response = String::new();
        soon(stream.read_to_string(&mut response)).await??;
        let (head, body) = response.split_once("\r\n\r\n").context("a head")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, head.to_owned(), body.to_owned()))
    }

    pub async fn json(&self, method: &str, path: &str) -> Result<(u16, Value)> {
        let (status, body) = self.ask(method, path, "").await?;
        let body = serde_json::from_str(&body).with_context(|| body.clone())?;
        Ok((status, body))
    }

    pub async fn put(&self, config: &Value) -> Result<(u16, Value)> {
        let (status, body) = self.ask("PUT", "/config", &config.to_string()).await?;
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&body)?
        };
        Ok((status, body))
    }

    /// What `/metrics` says, which must be valid.
    pub async fn metrics(&self) -> Result<Samples> {
        let (status, head, text) = self.whole("GET", "/metrics", "").await?;
        ensure!(status == 200, "{text}");
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        ensure!(head.lines().any(|line| line == kind), "{head}");
        openmetrics::parse(&text).with_context(|| text.clone())
    }
}
