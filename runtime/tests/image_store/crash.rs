//! A store whose process is killed in the middle of a load.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nuncio_runtime::image::ImageStore;

use crate::layout::{Compression, Layer, Layout};
use crate::{Place, content, no_progress, wait_for_deletion};

/// Tells the child which store to load its standard input into.
const STORE: &str = "NUNCIO_TEST_STORE";

/// Not a test of its own: [`spawn`] runs it as the process to kill.
#[tokio::test]
async fn child() -> Result<()> {
    let Some(root) = std::env::var_os(STORE) else {
        return Ok(());
    };
    let store = ImageStore::open(Path::new(&root))?;
    store.load(tokio::io::stdin(), no_progress()).await?;
    std::future::pending().await
}

fn spawn(root: &Path) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--exact", "crash::child", "--nocapture"])
        .env(STORE, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the process to kill")
}

fn archive() -> Result<Vec<u8>> {
    let many = |layer: usize| {
        (0..200).fold(Layer::new(), |tar, n| {
            tar.file(&format!("{layer}-{n}"), vec![7; 2_000])
        })
    };
    Layout::of(
        "thing:1",
        vec![many(0), many(1), many(2)],
        Compression::None,
    )?
    .pack()
}

#[tokio::test]
async fn the_image_is_whole_or_absent_and_nothing_else_stays() -> Result<()> {
    let archive = archive()?;
    let mut absent = 0;
    let mut whole = 0;
    for part in 0..=10 {
        let place = Place::new()?;
        let root = place.path("killed");
        let mut child = spawn(&root)?;
        let mut input = child.stdin.take().context("it was piped")?;
        // The pipe holds 64 KiB: by the end of the write nearly all of it was read and stored.
        input.write_all(&archive[..archive.len() * part / 10])?;
        if part == 10 {
            drop(input);
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 40 * u128::from(child.id() % 8) && !has_image(&root)
            {
                std::thread::yield_now();
            }
        }
        child.kill()?;
        child.wait()?;

        let store = ImageStore::open(&root)?;
        match store.find("thing:1") {
            Err(_) => {
                absent += 1;
                assert_eq!(content(&root)?, [""; 0], "killed after {part}/10");
            }
            Ok(image) => {
                whole += 1;
                let merged = store.mount(&image, &place.path("container")).await?.merged;
                assert_eq!(fs::read_dir(&merged)?.count(), 600);
                store.remove_rootfs(&place.path("container")).await?;
                // Manifest, configuration, three layers as blobs and unpacked.
                assert_eq!(content(&root)?.len(), 8);
            }
        }
        wait_for_deletion(&root)?;
        // What a killed process left does not stand in the way of the next.
        store.load(&archive[..], no_progress()).await?;
        assert_eq!(store.find("thing:1")?.size, 600 * 2_000);
    }
    assert!(absent >= 9, "{absent} absent, {whole} whole");
    Ok(())
}

#[tokio::test]
async fn a_kill_while_unpacking_leaves_no_trace() -> Result<()> {
    let archive = archive()?;
    for _ in 0..6 {
        let place = Place::new()?;
        let root = place.path("killed");
        let mut child = spawn(&root)?;
        child
            .stdin
            .take()
            .context("it was piped")?
            .write_all(&archive)?;
        // Waits for a state, not a time: the first layer is being, or has been, unpacked.
        while !is_unpacking(&root) && !has_image(&root) {
            std::thread::yield_now();
        }
        child.kill()?;
        child.wait()?;
        let store = ImageStore::open(&root)?;
        let expected = if store.list().is_empty() { 0 } else { 8 };
        assert_eq!(content(&root)?.len(), expected);
        wait_for_deletion(&root)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_whole_image_outlives_the_kill() -> Result<()> {
    let place = Place::new()?;
    let root = place.path("killed");
    let mut child = spawn(&root)?;
    child
        .stdin
        .take()
        .context("it was piped")?
        .write_all(&archive()?)?;
    while !has_image(&root) {
        std::thread::yield_now();
    }
    assert!(
        ImageStore::open(&root)
            .is_err_and(|error| error.to_string().contains("in use by another process"))
    );
    child.kill()?;
    child.wait()?;
    let store = ImageStore::open(&root)?;
    assert_eq!(store.find("thing:1")?.names, ["thing:1"]);
    assert_eq!(content(&root)?.len(), 8);
    Ok(())
}

fn has_image(root: &Path) -> bool {
    root.join("images.json").exists()
}

fn is_unpacking(root: &Path) -> bool {
    let exists = |dir: &str, is_dir: bool| {
        let entries = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() == is_dir))
    };
    exists("tmp", true) || exists("layers", true)
}
