//! Uploads that are refused before they are read.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

/// How much of a refused upload is read, as Go's HTTP server does: whoever is still sending it when the connection is closed
/// finds a broken pipe and not the reason.
const LENIENCE: usize = 256 << 10;
/// How long is waited for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads what a refused request has brought with it, within bounds, and drops it.
pub(super) async fn drain(mut body: Body) {
    let mut left = LENIENCE;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            left = left.saturating_sub(length);
            if left == 0 {
                return;
            }
        }
    };
    // whoever is slower gets the answer or the broken pipe, whichever comes first
    let _ = timeout(PATIENCE, rest).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn no_more_is_read_than_the_bound() {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let endless = stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 64 << 10]))
        });
        drain(Body::from_stream(endless)).await;
        assert_eq!(read.load(Ordering::Relaxed), 4);
    }
}
