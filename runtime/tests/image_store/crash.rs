//! A store whose process is killed in the middle of a load.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nuncio_runtime::image::{About, ImageStore, PullOptions};

use crate::layout::{Compression, Layer, Layout};
use crate::registry::Registry;
use crate::{Place, content, no_progress, wait_for_deletion};

/// Tells the child which store to work in, and what to do there with its standard input.
const STORE: &str = "NUNCIO_TEST_STORE";
const WORK: &str = "NUNCIO_TEST_WORK";
/// What it is to pull.
const IMAGE: &str = "NUNCIO_TEST_IMAGE";

/// Not a test of its own: [`spawn`] runs it as the process to kill.
#[tokio::test]
async fn child() -> Result<()> {
    let Some(root) = std::env::var_os(STORE) else {
        return Ok(());
    };
    let store = ImageStore::open(Path::new(&root))?;
    let name = Some("made:1".parse()?);
    match std::env::var(WORK)?.as_str() {
        "import" => {
            let stdin = tokio::io::stdin();
            store.import(stdin, name, About::default(), None).await?;
        }
        "pull" => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let image = std::env::var(IMAGE)?.parse()?;
            let options = PullOptions::default();
            store.pull(&image, options, no_progress()).await?;
        }
        "commit" => {
            let container = Path::new(&root).with_file_name("container");
            let about = About::default();
            store.commit("thing:1", &container, name, about).await?;
        }
        _ => drop(store.load(tokio::io::stdin(), no_progress()).await?),
    }
    std::future::pending().await
}

fn spawn(root: &Path) -> Result<Child> {
    spawn_to("load", root)
}

fn spawn_to(work: &str, root: &Path) -> Result<Child> {
    spawn_with(work, root, "")
}

fn spawn_with(work: &str, root: &Path, image: &str) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--exact", "crash::child", "--nocapture"])
        .env(STORE, root)
        .env(WORK, work)
        .env(IMAGE, image)
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

/// Kills the child once what it makes has come as far as `steps` looks at the store, or the image is there.
fn kill_after(mut child: Child, root: &Path, steps: usize, before: usize) -> Result<()> {
    let start = std::time::Instant::now();
    for _ in 0..steps {
        while parts(root) <= before && start.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// How much there is in a store, finished or not.
fn parts(root: &Path) -> usize {
    content(root).map_or(0, |content| content.len())
}

#[tokio::test]
async fn an_import_that_is_killed_leaves_the_image_or_nothing() -> Result<()> {
    let files = (0..300).fold(Layer::new(), |tar, n| {
        tar.file(&format!("file-{n}"), vec![7; 3_000])
    });
    let archive = files.bytes();
    for steps in 0..8 {
        let place = Place::new()?;
        let root = place.path("killed");
        let mut child = spawn_to("import", &root)?;
        let mut input = child.stdin.take().context("it was piped")?;
        let part = if steps == 0 {
            archive.len() / 2
        } else {
            archive.len()
        };
        input.write_all(&archive[..part])?;
        drop((steps > 0).then_some(input));
        kill_after(child, &root, steps * 40, 0)?;
        let store = ImageStore::open(&root)?;
        // Manifest, configuration, the layer as a blob and unpacked.
        let expected = if store.find("made:1").is_ok() { 4 } else { 0 };
        assert_eq!(content(&root)?.len(), expected, "killed after {steps}");
        wait_for_deletion(&root)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_commit_that_is_killed_leaves_the_image_or_nothing() -> Result<()> {
    let archive = archive()?;
    for steps in 0..8 {
        let place = Place::new()?;
        let root = place.path("killed");
        let store = ImageStore::open(&root)?;
        store.load(&archive[..], no_progress()).await?;
        let container = place.path("container");
        let merged = store
            .mount(&store.find("thing:1")?, &container)
            .await?
            .merged;
        for n in 0..300 {
            fs::write(merged.join(format!("own-{n}")), vec![8; 3_000])?;
        }
        store.unmount(&container).await?;
        drop(store);
        let before = content(&root)?.len();
        let child = spawn_to("commit", &root)?;
        kill_after(child, &root, steps * 40, before)?;
        let store = ImageStore::open(&root)?;
        let made = store.find("made:1");
        // Its own manifest, configuration, and one layer as a blob and unpacked.
        let expected = before + if made.is_ok() { 4 } else { 0 };
        assert_eq!(content(&root)?.len(), expected, "killed after {steps}");
        if let Ok(made) = made {
            let merged = store.mount(&made, &place.path("other")).await?.merged;
            assert_eq!(fs::read_dir(&merged)?.count(), 900);
            store.remove_rootfs(&place.path("other")).await?;
        }
        wait_for_deletion(&root)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_pull_that_is_killed_leaves_the_image_or_nothing() -> Result<()> {
    let registry = Registry::start()?;
    let many = |layer: usize| {
        (0..300).fold(Layer::new(), |tar, n| {
            tar.file(&format!("{layer}-{n}"), vec![7; 2_000])
        })
    };
    let layers = (0..4).map(many).collect();
    let layout = Layout::of("thing", layers, Compression::Gzip)?;
    let name = registry.push(&layout, "thing", "thing:1")?;
    for steps in 0..8 {
        let place = Place::new()?;
        let root = place.path("killed");
        let child = spawn_with("pull", &root, &name)?;
        kill_after(child, &root, 1 + steps * 60, 0)?;
        let store = ImageStore::open(&root)?;
        let pulled = store.find(&name);
        // Manifest, configuration, four layers as blobs and unpacked.
        let expected = if pulled.is_ok() { 10 } else { 0 };
        assert_eq!(content(&root)?.len(), expected, "killed after {steps}");
        if let Ok(image) = pulled {
            let merged = store.mount(&image, &place.path("container")).await?.merged;
            assert_eq!(fs::read_dir(&merged)?.count(), 1200);
            store.remove_rootfs(&place.path("container")).await?;
        }
        wait_for_deletion(&root)?;
    }
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
