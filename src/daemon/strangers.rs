//! Those who connect by TCP and have yet to show who they are: so many at once, and each for so long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// At once; more wait to be accepted.
const STRANGERS: usize = 256;
/// How long each of them has.
const PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts until `stop`. Whom `meet` gets to know is sent to `known`; of one that it refuses `refused` is told.
pub(super) async fn meet_all<T, Met>(
    listener: TcpListener,
    stop: CancellationToken,
    refused: &'static str,
    known: mpsc::Sender<T>,
    meet: impl Fn(TcpStream, SocketAddr) -> Met,
) where
    T: Send + 'static,
    Met: Future<Output = anyhow::Result<Option<T>>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(STRANGERS));
    let serve = async {
        loop {
            let permit = room.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (meeting, known) = (meet(stream, peer), known.clone());
                    tokio::spawn(async move {
                        let met = timeout(PATIENCE, meeting).await;
                        let met = met.unwrap_or_else(|_| {
                            Err(anyhow::anyhow!("nothing within {PATIENCE:?}"))
                        });
                        match met {
                            // An error: who serves them is ending.
                            Ok(Some(met)) => drop(known.send(met).await),
                            Ok(None) => {}
                            Err(error) => {
                                tracing::info!(%peer, error = format!("{error:#}"), "{refused}");
                            }
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Such as EMFILE: it passes.
                    tracing::warn!(%error, "accept by TCP");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = serve => {}
    }
}
