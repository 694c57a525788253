//! Power cuts: what was acknowledged is there, though what the disk was not told to keep may be gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;
use tonic::Status;

use super::apply::Batch;
use super::pb::etcdserverpb::{PutRequest, RangeRequest};
use super::store::Store;

/// A disk that keeps for certain only what came before the last sync.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Content>>);

#[derive(Clone, Debug, Default)]
struct Content {
    kept: Vec<u8>,
    now: Vec<u8>,
    /// What was changed since the last sync, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().now[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.change(Change::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let content = &mut *self.0.lock().unwrap();
        for change in content.pending.drain(..) {
            change.apply(&mut content.kept);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.change(Change::Write(
            usize::try_from(offset).unwrap(),
            data.to_vec(),
        ));
        Ok(())
    }

    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }

    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<(), redb::BackendError> {
        Ok(())
    }
}

impl Disk {
    fn change(&self, change: Change) {
        let mut content = self.0.lock().unwrap();
        change.apply(&mut content.now);
        content.pending.push(change);
    }

    /// What is on it after a power cut: all that was synced, and of the rest some, in part torn.
    fn cut(&self, rng: &mut StdRng) -> Self {
        const SECTOR: usize = 512;
        let content = self.0.lock().unwrap();
        let mut bytes = content.kept.clone();
        for change in &content.pending {
            match change {
                Change::Write(at, data) => {
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        if rng.random_bool(0.5) {
                            Change::Write(at + i * SECTOR, sector.to_vec()).apply(&mut bytes);
                        }
                    }
                }
                Change::Length(_) => change.apply(&mut bytes),
            }
        }
        Self(Arc::new(Mutex::new(Content {
            now: bytes.clone(),
            kept: bytes,
            pending: Vec::new(),
        })))
    }
}

fn open(disk: &Disk) -> Store {
    let database = redb::Builder::new()
        .create_with_backend(disk.clone())
        .unwrap();
    Store::open(database, PathBuf::new(), u64::MAX).unwrap().0
}

async fn put(store: &Store, key: String, value: String) -> Result<(), Status> {
    let request = PutRequest {
        key: key.into_bytes(),
        value: value.into_bytes(),
        ..PutRequest::default()
    };
    let write = move |batch: &mut Batch<'_>| {
        batch.put(request)?;
        batch.seal();
        Ok(())
    };
    store.write(write).await
}

async fn get(store: &Store, key: &str) -> u64 {
    let request = RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    };
    let found = store.range(request).await.unwrap();
    let value = found.kvs.first().map_or(&b"0"[..], |kv| &kv.value);
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_power_cuts() {
    const CUTS: u64 = 60;
    const WRITERS: usize = 4;
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = Disk::default();
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| 0.into()).collect());
    for cut in 0..CUTS {
        let store = open(&disk);
        for (writer, counter) in acknowledged.iter().enumerate() {
            let (there, told) = (get(&store, &format!("k{writer}")).await, counter);
            let told = told.swap(there, Ordering::SeqCst);
            assert!(
                there >= told,
                "cut {cut}: {there} is there, {told} was told"
            );
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    loop {
                        let next = acknowledged[writer].load(Ordering::SeqCst) + 1;
                        put(&store, format!("k{writer}"), next.to_string())
                            .await
                            .unwrap();
                        acknowledged[writer].store(next, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let sum = || -> u64 { acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).sum() };
        let enough = sum() + rng.random_range(0..40);
        while sum() < enough {
            tokio::task::yield_now().await;
        }
        // What is told before the cut counts; what is told after it may be lost.
        let told: Vec<u64> = acknowledged
            .iter()
            .map(|n| n.load(Ordering::SeqCst))
            .collect();
        let left = disk.cut(&mut rng);
        for writer in writers {
            writer.abort();
            let _ = writer.await; // it was aborted
        }
        for (counter, told) in acknowledged.iter().zip(told) {
            counter.store(told, Ordering::SeqCst);
        }
        disk = left;
    }
}
