//! State that is written down before it is acknowledged, and forced onto the disk after that.
//!
//! A daemon that is killed has lost nothing: what it wrote the kernel has. It stands beside the file, as `NAME.pending`,
//! until a thread has it on the disk and puts it in the file's place. After a power cut it may be missing or torn; then
//! the file says what was true a moment before, and is whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;

use serde::de::IgnoredAny;

use super::super::container::locked;

/// The files whose new content waits for the disk, each once.
static QUEUE: LazyLock<Mutex<BTreeSet<PathBuf>>> = LazyLock::new(Mutex::default);
static QUEUED: Condvar = Condvar::new();
/// Held by whoever gives a pending file its name or takes it away, so that none takes another's.
static NAMES: Mutex<()> = Mutex::new(());
/// Started with the first file.
static THREAD: LazyLock<io::Result<()>> = LazyLock::new(|| {
    let thread = thread::Builder::new().name("state-files".into());
    thread.spawn(serve).map(drop)
});

/// Replaces what is read of `path` by `bytes`, which reach the disk soon.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    {
        let _names = locked(&NAMES);
        file.persist(pending(path)).map_err(|error| error.error)?;
    }
    queue(path);
    Ok(())
}

/// The content that waits for the disk, if there is any and the last power cut left it whole.
pub(super) fn waiting(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(pending(path)) {
        Ok(bytes) if serde_json::from_slice::<IgnoredAny>(&bytes).is_ok() => {
            queue(path);
            Ok(Some(bytes))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes back what waits for the disk once `change` has made the file itself newer, or removed it.
pub(super) fn overtake(path: &Path, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let _names = locked(&NAMES);
    change()?;
    super::remove(&pending(path))
}

fn pending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pending");
    name.into()
}

fn queue(path: &Path) {
    if let Err(error) = &*THREAD {
        tracing::warn!(%error, "no thread to bring state onto the disk: the kernel will");
        return;
    }
    locked(&QUEUE).insert(path.to_owned());
    QUEUED.notify_one();
}

fn serve() {
    loop {
        let mut waiting = locked(&QUEUE);
        let path = loop {
            match waiting.pop_first() {
                Some(path) => break path,
                None => {
                    let woken = QUEUED.wait(waiting);
                    waiting = woken.unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        };
        drop(waiting);
        match settle(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // its container is gone
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "bring state onto the disk");
            }
        }
    }
}

/// Has the pending content on the disk, and then in the file's place, unless there is a newer one by then.
fn settle(path: &Path) -> io::Result<()> {
    let pending = pending(path);
    let file = File::open(&pending)?;
    file.sync_all()?;
    {
        let _names = locked(&NAMES);
        if fs::symlink_metadata(&pending)?.ino() != file.metadata()?.ino() {
            return Ok(()); // it is in the queue
        }
        fs::rename(&pending, path)?;
    }
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{read, remove_with, write, write_soon};
    use super::*;

    #[test]
    fn the_newest_is_read_whether_it_has_reached_the_disk_or_not() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("value.json");
        for number in 0..50 {
            write_soon(&path, &number)?;
            assert_eq!(read::<u32>(&path)?, Some(number));
        }
        while pending(&path).exists() {
            thread::yield_now();
        }
        assert_eq!(serde_json::from_slice::<u32>(&fs::read(&path)?)?, 49);
        Ok(())
    }

    #[test]
    fn what_a_power_cut_tore_is_not_read() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("value.json");
        write(&path, &1)?;
        for torn in ["", "{\"v\":", "\0\0\0"] {
            fs::write(pending(&path), torn)?;
            assert_eq!(read::<u32>(&path)?, Some(1), "{torn:?}");
        }
        fs::write(pending(&path), "2")?;
        assert_eq!(read::<u32>(&path)?, Some(2));
        Ok(())
    }

    #[test]
    fn a_durable_write_is_not_outlived_by_what_waited() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("value.json");
        write_soon(&path, &1)?;
        write(&path, &2)?;
        assert_eq!(read::<u32>(&path)?, Some(2));
        Ok(())
    }

    #[test]
    fn a_directory_goes_while_its_state_is_on_its_way() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        for number in 0..50 {
            let inner = directory.path().join(number.to_string());
            fs::create_dir(&inner)?;
            let path = inner.join("value.json");
            write_soon(&path, &number)?;
            remove_with(&inner, &path)?;
            assert!(!inner.exists());
        }
        Ok(())
    }
}
