//! Etcds that lack what is asked of them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use anyhow::Result;
use nuncio_registry::{ConnectError, ConnectOptions, Registry};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_prost::ProstCodec;

/// Of etcd's `StatusResponse` what is asked for.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    version: String,
}

/// An etcd of that version, which answers nothing but which one it is.
#[derive(Clone)]
struct Old(&'static str);

impl NamedService for Old {
    const NAME: &'static str = "etcdserverpb.Maintenance";
}

impl UnaryService<()> for Old {
    type Response = Status;
    type Future = std::future::Ready<Result<tonic::Response<Status>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<()>) -> Self::Future {
        let version = self.0.to_owned();
        std::future::ready(Ok(tonic::Response::new(Status { version })))
    }
}

impl Service<Request<Body>> for Old {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let version = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Status, ()>::default());
            Ok(grpc.unary(version, request).await)
        })
    }
}

async fn serve(version: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder().add_service(Old(version));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address)
}

#[tokio::test]
async fn an_etcd_that_is_too_old_or_does_not_say_is_refused_by_what_it_says() -> Result<()> {
    for (version, told) in [
        ("3.2.32", "is etcd 3.2.32"),
        ("", "does not say which version of etcd it is"),
    ] {
        let endpoint = format!("http://{}", serve(version).await?);
        let options = ConnectOptions {
            endpoints: vec![endpoint.clone()],
            ..ConnectOptions::default()
        };
        let refused = Registry::connect(&options).await;
        let Err(error @ ConnectError::TooOld { .. }) = refused else {
            panic!("{version:?}: {refused:?}");
        };
        assert_eq!(
            error.to_string(),
            format!("the registry at {endpoint} {told}, expected 3.4.0 or later")
        );
    }
    Ok(())
}
