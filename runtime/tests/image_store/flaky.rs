//! What breaks: connections that are cut, and a disk that is full.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_runtime::image::{About, ImageStore, ProgressStatus, PullOptions, Reference};
use tokio::sync::mpsc;

use crate::layout::{Compression, Layer, Layout};
use crate::registry::Registry;
use crate::{Place, chain, content, no_progress};

/// Bytes of an answer after which a connection is cut.
const CUT_AFTER: usize = 300 << 10;

/// Bytes that no compression makes fewer.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Passes connections on to `target`, and cuts `cuts` of them. Gives back its address.
fn proxy(target: String, cuts: Arc<AtomicUsize>) -> Result<String> {
    listen(move |client| carry(client, &target, &cuts))
}

/// Passes connections on to `target`, but lets nothing through of the answer for `blob`, and on that connection, until
/// `is_time`. Gives back its address.
pub(crate) fn hold_back(
    target: String,
    blob: String,
    is_time: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<String> {
    listen(move |client| hold(client, &target, &blob, &is_time))
}

/// Has a thread carry each connection. Gives back where they come in.
pub(crate) fn listen(
    carry: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let carry = Arc::new(carry);
    spawn(move || {
        for client in listener.incoming().flatten() {
            let carry = Arc::clone(&carry);
            spawn(move || carry(client));
        }
    });
    Ok(address)
}

fn hold(
    mut client: TcpStream,
    target: &str,
    blob: &str,
    is_time: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let is_asked = Arc::new(AtomicBool::new(false));
    let (asked, blob) = (Arc::clone(&is_asked), blob.to_owned());
    spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if String::from_utf8_lossy(&buffer[..count]).contains(&blob) {
                asked.store(true, Ordering::SeqCst);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        asked.store(false, Ordering::SeqCst); // nobody waits for it any more
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 16 << 10];
    loop {
        let count = server.read(&mut buffer)?;
        while is_asked.load(Ordering::SeqCst) && !is_time() && count > 0 {
            sleep(Duration::from_millis(2)); // it looks again
        }
        if count == 0 {
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(&buffer[..count])?;
    }
}

fn carry(mut client: TcpStream, target: &str, cuts: &AtomicUsize) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut buffer, mut carried) = ([0; 16 << 10], 0);
    loop {
        let count = server.read(&mut buffer)?;
        if count == 0 {
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(&buffer[..count])?;
        carried += count;
        let take = |left: usize| left.checked_sub(1);
        if carried > CUT_AFTER
            && cuts
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_ok()
        {
            server.shutdown(Shutdown::Both)?;
            return client.shutdown(Shutdown::Both);
        }
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (registry, place) = (Registry::start()?, Place::new()?);
    let layers = vec![Layer::new().file("noise", noise(2 << 20))];
    let layout = Layout::of("thing", layers, Compression::Gzip)?;
    registry.push(&layout, "thing", "thing:1")?;
    let cuts = Arc::new(AtomicUsize::new(2));
    let address = proxy(registry.address.clone(), Arc::clone(&cuts))?;
    let name: Reference = format!("{address}/thing:1").parse()?;
    let (sender, mut progress) = mpsc::channel(10_000);
    let pulled = place
        .store
        .pull(&name, PullOptions::default(), sender)
        .await?;
    assert_eq!(pulled.image.size, 2 << 20);
    assert_eq!(cuts.load(Ordering::SeqCst), 0);
    let mut retries = Vec::new();
    while let Some(step) = progress.recv().await {
        if let ProgressStatus::Retrying(seconds) = step.status {
            retries.push(seconds);
        }
    }
    assert_eq!(
        retries,
        [1, 1],
        "each break is a first one: bytes came in between"
    );
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_told_and_its_space_given_back() -> Result<()> {
    let place = Place::new()?;
    let root = place.path("small");
    std::fs::create_dir(&root)?;
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&root)
        .status()?;
    ensure!(mounted.success(), "mount a tmpfs");
    let store = ImageStore::open(&root)?;
    let layer = || Layer::new().file("noise", noise(3 << 20));
    let archive = Layout::of("thing:1", vec![layer()], Compression::None)?.pack()?;
    let loaded = store.load(&archive[..], no_progress()).await;
    let error = chain(loaded.expect_err("it does not fit"));
    assert!(error.contains("No space left on device"), "{error}");
    let tar = layer().bytes();
    let imported = store.import(&tar[..], None, About::default(), None).await;
    let error = chain(imported.expect_err("it does not fit"));
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(content(&root)?, [""; 0]);
    // there is room again for what fits
    let small = Layout::of(
        "small:1",
        vec![Layer::new().file("a", "b")],
        Compression::None,
    )?;
    store.load(&small.pack()?[..], no_progress()).await?;
    drop(store);
    Ok(())
}
