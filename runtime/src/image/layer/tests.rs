#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs::File;
use std::future::ready;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::image::{ImageStore, Limits};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store, and layers of which each lies on those before it.
struct Pile {
    dir: TempDir,
    store: ImageStore,
    layers: Vec<LayerSpec>,
    archives: Vec<Vec<u8>>,
}

/// The tar of one file, of a hard link or of a file without its directory, as `entry` says.
fn archive(entry: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    entry(&mut builder);
    builder.into_inner().unwrap()
}

fn file(name: &'static str) -> Vec<u8> {
    archive(|builder| add(builder, tar::EntryType::Regular, name, ""))
}

fn add(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, link: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o1750);
    header.set_size(0);
    match link {
        "" => builder.append_data(&mut header, name, &[][..]).unwrap(),
        link => builder.append_link(&mut header, name, link).unwrap(),
    }
}

impl Pile {
    /// Blobs that are in the store but for the first `absent`.
    fn new(archives: Vec<Vec<u8>>, absent: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let limits = Limits {
            unpacking: 2,
            ..Limits::default()
        };
        let store = ImageStore::open_with(&dir.path().join("images"), limits).unwrap();
        let digests: Vec<_> = archives.iter().map(|archive| Digest::of(archive)).collect();
        let chain = LayerId::chain(&digests);
        let layers = digests.iter().enumerate().map(|(at, &digest)| LayerSpec {
            id: chain[at],
            blob: digest,
            diff: digest,
            below: chain[..at].to_vec(),
        });
        let pile = Self {
            layers: layers.collect(),
            dir,
            store,
            archives,
        };
        (absent..digests.len()).for_each(|at| pile.bring(at));
        pile
    }

    fn bring(&self, at: usize) {
        std::fs::write(self.blob(at), &self.archives[at]).unwrap();
    }

    /// Lets the content through a pipe that is the blob.
    async fn feed(&self, at: usize) {
        let (archive, blob) = (self.archives[at].clone(), self.blob(at));
        let write = move || File::create(blob).unwrap().write_all(&archive).unwrap();
        tokio::task::spawn_blocking(write).await.unwrap();
    }

    fn blob(&self, at: usize) -> PathBuf {
        self.store.inner.blobs.path(self.layers[at].blob)
    }

    fn diff(&self, at: usize) -> PathBuf {
        self.store.inner.layer_diff(self.layers[at].id)
    }

    fn lease(&self) -> Arc<Lease> {
        Arc::new(Lease::new(&self.store.inner))
    }

    /// Makes the layers of blobs that are all there by now.
    async fn make(&self, lease: &Arc<Lease>) -> Result<u64, MakeLayerError> {
        let here = self.layers.iter().map(|_| ready(Ok(None)));
        let stack = Stack::new(lease, &self.layers);
        stack.make(here, quiet, |_, error| error).await
    }

    /// Waits until `name` was unpacked, wherever.
    async fn unpacked(&self, name: &str) {
        let tmp = self.store.inner.tmp();
        let is_there = || {
            let staged = std::fs::read_dir(&tmp).unwrap();
            let mut staged = staged.map(|entry| entry.unwrap().path().join("diff"));
            staged.any(|diff| diff.join(name).exists())
        };
        until(is_there).await;
    }

    fn left(&self) -> usize {
        let count = |dir: &str| {
            let dir = self.dir.path().join("images").join(dir);
            std::fs::read_dir(dir).unwrap().count()
        };
        count("layers") + count("tmp")
    }
}

fn quiet(blob: Digest) -> LayerProgress {
    LayerProgress::new(blob.short(), mpsc::channel(1).0)
}

async fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn pipe(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[tokio::test]
async fn layers_are_unpacked_while_one_beneath_is() {
    let pile = Pile::new(vec![file("one"), file("two"), file("three")], 1);
    // The lowest layer is being unpacked for as long as nothing comes of its blob.
    pipe(&pile.blob(0));
    let lease = pile.lease();
    let held = async {
        pile.unpacked("two").await;
        pile.unpacked("three").await;
        assert!(!pile.diff(1).exists(), "it comes after the one beneath");
        pile.feed(0).await;
    };
    let (made, ()) = tokio::join!(pile.make(&lease), held);
    assert_eq!(made.unwrap(), 0);
    for (at, name) in ["one", "two", "three"].iter().enumerate() {
        assert!(pile.diff(at).join(name).exists());
    }
    assert_eq!(pile.left(), 3, "nothing but the layers");
}

#[tokio::test]
async fn no_more_are_unpacked_at_a_time_than_allowed() {
    let names = ["a", "b", "c", "d"];
    let pile = Pile::new(names.map(file).to_vec(), 4);
    for at in 0..4 {
        pipe(&pile.blob(at));
    }
    let (lease, inner) = (pile.lease(), &pile.store.inner);
    let feed = async {
        for at in 0..4 {
            let begun = || std::fs::read_dir(inner.tmp()).unwrap().count();
            let turns = 2.min(4 - at);
            until(|| inner.unpacking.available_permits() == 2 - turns && begun() == turns).await;
            pile.feed(at).await;
            until(|| pile.diff(at).exists()).await;
        }
    };
    let (made, ()) = tokio::join!(pile.make(&lease), feed);
    made.unwrap();
    assert_eq!(pile.left(), 4);
}

#[tokio::test]
async fn what_leans_on_a_layer_beneath_waits_for_it() {
    let lowest = archive(|tar| {
        add(tar, tar::EntryType::Directory, "shared", "");
        add(tar, tar::EntryType::Regular, "file", "");
    });
    let pile = Pile::new(
        vec![
            lowest,
            archive(|tar| add(tar, tar::EntryType::Link, "linked", "file")),
            // more directories than it is good to remember while it waits
            archive(|tar| {
                for n in 0..3000 {
                    let name = format!("{}/{n}/file", "many".repeat(20));
                    add(tar, tar::EntryType::Regular, &name, "");
                }
            }),
            file("shared/own"),
        ],
        1,
    );
    pipe(&pile.blob(0));
    let lease = pile.lease();
    let held = async {
        pile.unpacked("shared/own").await;
        // The two before it had their turn: they are to be unpacked anew.
        assert_eq!(pile.left(), 2);
        pile.feed(0).await;
    };
    let (made, ()) = tokio::join!(pile.make(&lease), held);
    made.unwrap();
    assert!(pile.diff(1).join("linked").exists());
    let mode = |path: PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().unwrap().permissions().mode() & 0o7777
    };
    assert!(
        pile.diff(2)
            .join("many".repeat(20))
            .join("2999/file")
            .exists()
    );
    assert_eq!(mode(pile.diff(3).join("shared")), 0o1750);
}

#[tokio::test]
async fn the_failure_of_one_ends_the_others_and_leaves_nothing() {
    let mut broken = file("broken");
    broken[0] ^= 1; // the checksum is wrong
    let pile = Pile::new(vec![file("one"), file("two"), broken], 2);
    let lease = pile.lease();
    let stop = lease.stop_on_drop();
    // The lowest never comes, the second is unpacked before the third fails.
    let arrivals = (0..3).map(|at| {
        let pile = &pile;
        async move {
            match at {
                0 => std::future::pending::<()>().await,
                1 => pile.bring(1),
                _ => pile.unpacked("two").await,
            }
            Ok(None)
        }
    });
    let stack = Stack::new(&lease, &pile.layers);
    let made = stack.make(arrivals, quiet, |_, error| error).await;
    assert!(
        matches!(made, Err(MakeLayerError::Unpack(_))),
        "{:?}",
        made.err()
    );
    drop(stop);
    lease.settle().await;
    assert_eq!(pile.left(), 0);
}

#[tokio::test]
async fn who_goes_ends_what_is_being_unpacked() {
    let pile = Pile::new(vec![file("one"), file("two")], 1);
    pipe(&pile.blob(0));
    let lease = pile.lease();
    let stop = lease.stop_on_drop();
    let began = tokio::select! {
        _ = pile.make(&lease) => false,
        () = pile.unpacked("two") => true,
    };
    assert!(began);
    drop(stop);
    // There is more to come of the blob, but nobody reads on.
    let blob = pile.blob(0);
    let endless = move || {
        let mut pipe = File::create(blob)?;
        loop {
            pipe.write_all(&[0; 4096])?;
        }
    };
    let written: std::io::Result<()> = tokio::task::spawn_blocking(endless).await.unwrap();
    assert!(written.is_err());
    lease.settle().await;
    assert_eq!(pile.left(), 0);
}
