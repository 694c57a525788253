use axum::Router;
use axum::routing::post;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;

/// Serves a stream that answers, once its input has ended, with all of it in capitals.
struct Shouting {
    directory: TempDir,
    server: JoinHandle<std::io::Result<()>>,
}

impl Shouting {
    fn serve() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixListener::bind(directory.path().join("s")).expect("a socket");
        let talk = async |mut reader: ClientReader, mut writer: ClientWriter| {
            let mut said = String::new();
            reader
                .read_to_string(&mut said)
                .await
                .expect("text until the half-close");
            writer
                .write_all(said.to_uppercase().as_bytes())
                .await
                .expect("the client listens");
            writer.shutdown().await.expect("the client listens");
        };
        let shout = async move |request: Request| answer(request, Framing::Raw, talk);
        let router = Router::new().route("/shout", post(shout));
        Self {
            directory,
            server: tokio::spawn(async move { axum::serve(socket, router).await }),
        }
    }

    /// Sends a request and all that follows it, half-closes, and returns the whole answer.
    async fn ask(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.directory.path().join("s"))
            .await
            .expect("it listens");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        stream.shutdown().await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }
}

impl Drop for Shouting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn a_connection_that_is_taken_over_may_be_closed_by_halves() {
    let answer = Shouting::serve()
        .ask("POST /shout HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("content-type: application/vnd.docker.raw-stream\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nHELLO"), "{answer}");
}

#[tokio::test]
async fn without_an_upgrade_the_stream_is_the_body() {
    let answer = Shouting::serve()
        .ask("POST /shout HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("HELLO"), "{answer}");
}

#[test]
fn frames_have_a_header_unless_there_is_a_terminal() {
    let frame = Framing::of(false).frame(Channel::Stderr, b"oops\n");
    assert_eq!(&frame[..], b"\x02\0\0\0\0\0\0\x05oops\n");
    assert_eq!(&Framing::of(true).frame(Channel::Stdout, b"hi")[..], b"hi");
}

#[test]
fn the_media_type_of_frames_came_with_1_42() {
    let old: ApiVersion = "1.41".parse().expect("a version");
    let new: ApiVersion = "1.42".parse().expect("a version");
    assert_eq!(
        Framing::Multiplexed.content_type(old),
        "application/vnd.docker.raw-stream"
    );
    assert_eq!(
        Framing::Multiplexed.content_type(new),
        "application/vnd.docker.multiplexed-stream"
    );
    assert_eq!(
        Framing::Raw.content_type(new),
        "application/vnd.docker.raw-stream"
    );
}
