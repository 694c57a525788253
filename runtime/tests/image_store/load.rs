//! Archives of each kind that other tools write.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nuncio_runtime::image::{Digest, LoadError, ProgressStatus};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::layout::{Compression, Layer, Layout, gzip};
use crate::{Place, chain, no_progress, run};

fn layers() -> Vec<Layer> {
    vec![
        Layer::new().dir("etc").file("etc/one", "1"),
        Layer::new().file("two", "2"),
    ]
}

/// Loads, and looks at the files through a mount.
async fn expect_image(place: &Place, archive: &[u8], name: &str) -> Result<()> {
    let loaded = place.load(archive).await?;
    assert_eq!(loaded.len(), 1, "{loaded:?}");
    assert_eq!(loaded[0].names, [name]);
    let image = place.store.find(name)?;
    assert_eq!(image.id, loaded[0].id);
    let rootfs = place.mount(&image).await?;
    assert_eq!(fs::read_to_string(rootfs.merged.join("etc/one"))?, "1");
    assert_eq!(fs::read_to_string(rootfs.merged.join("two"))?, "2");
    place.store.remove_rootfs(&place.path("container")).await?;
    Ok(())
}

#[tokio::test]
async fn an_oci_archive_with_layers_of_each_compression() -> Result<()> {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let place = Place::new()?;
        let layout = Layout::of("thing:1", layers(), compression)?;
        expect_image(&place, &layout.pack()?, "thing:1").await?;
        let image = place.store.find("thing:1")?;
        assert_eq!(image.size, 2, "{compression:?}");
        assert_eq!(image.layers.len(), 2);
        assert_eq!(
            image.config.config().as_ref().unwrap().cmd().as_deref(),
            Some(&["/bin/true".to_owned()][..])
        );
        let created = image
            .created
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH)?;
        assert_eq!(created.as_secs(), 1_577_934_245);
    }
    Ok(())
}

#[tokio::test]
async fn a_compressed_archive() -> Result<()> {
    let layout = Layout::of("thing:1", layers(), Compression::Gzip)?;
    let plain = layout.pack()?;
    for packed in [gzip(&plain)?, zstd::encode_all(&plain[..], 1)?] {
        let place = Place::new()?;
        expect_image(&place, &packed, "thing:1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_skopeo_writes_of_both_kinds() -> Result<()> {
    let layout = Layout::of("thing:1", layers(), Compression::Gzip)?;
    let source = format!("oci:{}:thing:1", layout.dir.path().display());
    for (kind, tag) in [
        ("oci-archive", "thing:1"),
        ("docker-archive", "docker.io/library/thing:1"),
    ] {
        let place = Place::new()?;
        let archive = place.path("archive.tar");
        let target = format!("{kind}:{}:{tag}", archive.display());
        run(
            "skopeo",
            &["copy", "--quiet", "--insecure-policy", &source, &target],
        )?;
        expect_image(&place, &fs::read(archive)?, "thing:1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_umoci_makes_of_a_layout() -> Result<()> {
    let place = Place::new()?;
    let layout = Layout::of("base", layers(), Compression::Gzip)?;
    let dir = layout.dir.path().display().to_string();
    let bundle = place.path("bundle");
    run(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{dir}:base"),
            &bundle.display().to_string(),
        ],
    )?;
    fs::remove_file(bundle.join("rootfs/two"))?;
    fs::write(bundle.join("rootfs/three"), "3")?;
    run(
        "umoci",
        &[
            "repack",
            "--image",
            &format!("{dir}:thing:2"),
            &bundle.display().to_string(),
        ],
    )?;

    let loaded = place.load(&layout.pack()?).await?;
    assert_eq!(loaded.len(), 2);
    let image = place.store.find("thing:2")?;
    let rootfs = place.mount(&image).await?;
    assert_eq!(fs::read_to_string(rootfs.merged.join("three"))?, "3");
    assert!(!rootfs.merged.join("two").exists());
    // "base" alone is a tag of no repository: the image is there under its ID.
    let unnamed = loaded
        .iter()
        .find(|loaded| loaded.names.is_empty())
        .unwrap();
    assert_eq!(place.store.find(&unnamed.id)?.layers.len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_umoci_inserts_at_the_root() -> Result<()> {
    let place = Place::new()?;
    let layout = Layout::of("base", layers(), Compression::Gzip)?;
    let tree = place.path("tree");
    fs::create_dir(&tree)?;
    fs::write(tree.join("three"), "3")?;
    let base = format!("{}:base", layout.dir.path().display());
    // Its layer begins with an entry for "/".
    let tree = tree.display().to_string();
    run(
        "umoci",
        &["insert", "--image", &base, "--tag", "thing:2", &tree, "/"],
    )?;
    place.load(&layout.pack()?).await?;
    let root = place.mount(&place.store.find("thing:2")?).await?.merged;
    assert_eq!(fs::read_to_string(root.join("three"))?, "3");
    assert_eq!(fs::read_to_string(root.join("etc/one"))?, "1");
    Ok(())
}

#[tokio::test]
async fn what_docker_save_wrote_before_it_knew_oci() -> Result<()> {
    let place = Place::new()?;
    let plain: Vec<_> = layers().into_iter().map(Layer::bytes).collect();
    let diffs: Vec<_> = plain
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [&diffs[0], &diffs[1], &diffs[0]]}});
    let manifest = json!([{"Config": "c.json", "RepoTags": ["thing:1", "other/name:2"],
        "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]);
    let mut tar = tar::Builder::new(fs::File::create(place.path("saved"))?);
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content)
    };
    add("a/layer.tar", &plain[0])?;
    add("b/layer.tar", &plain[1])?;
    add("c.json", config.to_string().as_bytes())?;
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "c/layer.tar", "../a/layer.tar")?;
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.to_string().len() as u64);
    tar.append_data(
        &mut header,
        "manifest.json",
        manifest.to_string().as_bytes(),
    )?;
    tar.into_inner()?.flush()?;

    let loaded = place.load(&fs::read(place.path("saved"))?).await?;
    assert_eq!(loaded[0].names, ["other/name:2", "thing:1"]);
    assert_eq!(place.store.find("thing:1")?.layers.len(), 3);
    Ok(())
}

#[tokio::test]
async fn names_from_containerd_and_an_index_by_platform() -> Result<()> {
    let place = Place::new()?;
    let mut layout = Layout::new()?;
    let ours = layout.image(layers(), Compression::Gzip, "amd64")?;
    let theirs = layout.image(
        vec![Layer::new().file("alien", "")],
        Compression::Gzip,
        "riscv64",
    )?;
    let host = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let index = layout.index(vec![(theirs, "riscv64"), (ours, host)])?;
    layout.annotate("io.containerd.image.name", "ghcr.io/some/thing:3", index)?;
    expect_image(&place, &layout.pack()?, "ghcr.io/some/thing:3").await
}

#[tokio::test]
async fn progress_names_each_layer_until_it_is_complete() -> Result<()> {
    let place = Place::new()?;
    let archive = Layout::of("thing:1", layers(), Compression::Gzip)?.pack()?;
    for last in [ProgressStatus::Complete, ProgressStatus::AlreadyExists] {
        let (sender, mut receiver) = mpsc::channel(64);
        place.store.load(&archive[..], sender).await?;
        let mut ended = Vec::new();
        while let Some(progress) = receiver.recv().await {
            if progress.status == last {
                assert_eq!(progress.id.len(), 12);
                ended.push(progress.id);
            }
        }
        assert_eq!(ended.len(), 2);
    }
    Ok(())
}

/// A layout with one layer of exactly these bytes, said to have this digest when uncompressed.
fn single(layer: &[u8], diff: Digest) -> Result<Layout> {
    let mut layout = Layout::new()?;
    let layer = layout.blob(layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff.to_string()]}});
    let config = layout.blob(
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    )?;
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest = layout.blob(
        manifest.to_string().as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    )?;
    layout.name("thing:1", manifest)?;
    Ok(layout)
}

/// Loads what must be refused; nothing may stay of it.
async fn expect_refusal(archive: &[u8]) -> Result<LoadError> {
    let place = Place::new()?;
    let (sender, _receiver) = mpsc::channel(1);
    let refused = place.store.load(archive, sender).await;
    let error = refused.expect_err("it was loaded");
    assert_eq!(place.store.list().len(), 0);
    assert_eq!(place.content()?, [""; 0], "{error:?}");
    Ok(error)
}

#[tokio::test]
async fn what_is_no_image_is_refused_by_what_it_lacks() -> Result<()> {
    let error = expect_refusal(b"this is not a tar archive").await?;
    assert!(chain(error).contains("in the middle of an entry"));
    let error = expect_refusal(&[b'x'; 2048]).await?;
    assert_eq!(
        chain(error),
        "entry 1 of the archive is malformed: its checksum is wrong"
    );
    let error = expect_refusal(b"").await?;
    assert!(matches!(error, LoadError::NoImage), "{error}");
    let error = expect_refusal(&Layer::new().file("etc/passwd", "root").bytes()).await?;
    assert!(matches!(error, LoadError::NoImage), "{error}");
    let whole = Layout::of("thing:1", layers(), Compression::Gzip)?.pack()?;
    let error = expect_refusal(&whole[..whole.len() / 2]).await?;
    assert!(chain(error).contains("the archive"));
    Ok(())
}

#[tokio::test]
async fn a_blob_that_is_not_what_its_name_says_is_refused() -> Result<()> {
    let layout = Layout::of("thing:1", layers(), Compression::None)?;
    for entry in fs::read_dir(layout.dir.path().join("blobs/sha256"))? {
        let path = entry?.path();
        let good = fs::read(&path)?;
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::write(&path, bad)?;
        let error = expect_refusal(&layout.pack()?).await?;
        let text = chain(error);
        assert!(
            text.contains("content has digest sha256:")
                && text.contains(&path.file_name().unwrap().display().to_string()),
            "{text}"
        );
        fs::write(&path, good)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_layer_whose_content_is_not_what_the_configuration_says_is_refused() -> Result<()> {
    let tar = Layer::new().file("a", "b").bytes();
    let layout = single(&tar, Digest::of(b"something else"))?;
    let text = chain(expect_refusal(&layout.pack()?).await?);
    let expected = format!(
        "but the image's configuration says {}",
        Digest::of(b"something else")
    );
    assert!(text.contains(&expected), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_layer_that_climbs_is_refused_and_leaves_nothing() -> Result<()> {
    let mut evil = Layer::new().file("fine", "x").bytes();
    evil.truncate(1024);
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    evil.extend_from_slice(header.as_bytes());
    evil.extend_from_slice(&[0; 1024]);
    let layout = single(&evil, Digest::of(&evil))?;
    let text = chain(expect_refusal(&layout.pack()?).await?);
    assert!(
        text.contains("entry \"../evil\" is refused: it contains \"..\""),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_load_that_is_dropped_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let archive = Layout::of("thing:1", layers(), Compression::Gzip)?.pack()?;
    let (mut sender, receiver) = tokio::io::duplex(1024);
    let store = place.store.clone();
    let load = tokio::spawn(async move { store.load(receiver, crate::no_progress()).await });
    tokio::io::AsyncWriteExt::write_all(&mut sender, &archive[..archive.len() / 2]).await?;
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled());
    let start = std::time::Instant::now();
    while !place.content()?.is_empty() {
        assert!(start.elapsed().as_secs() < 20, "{:?}", place.content()?);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_root_file_system_made_with_tar_keeps_owners_and_links() -> Result<()> {
    let place = Place::new()?;
    let tree = place.path("tree");
    fs::create_dir_all(tree.join("bin"))?;
    fs::write(tree.join("bin/a"), "x")?;
    fs::hard_link(tree.join("bin/a"), tree.join("bin/b"))?;
    std::os::unix::fs::chown(tree.join("bin/a"), Some(12), Some(34))?;
    let packed = Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .args(["-cf", "-", "."])
        .output()?
        .stdout;
    let layout = single(&packed, Digest::of(&packed))?;
    place.load(&layout.pack()?).await?;
    let rootfs = place.mount(&place.store.find("thing:1")?).await?;
    let stat = |name: &str| fs::metadata(rootfs.merged.join(name));
    let (a, b) = (stat("bin/a")?, stat("bin/b")?);
    assert_eq!((a.uid(), a.gid(), a.ino()), (12, 34, b.ino()));
    Ok(())
}

#[tokio::test]
async fn layers_are_unpacked_while_the_archive_still_comes_in() -> Result<()> {
    let place = Place::new()?;
    let archive = Layout::of("thing:1", layers(), Compression::None)?.pack()?;
    let (whole, rest) = archive.split_at(archive.len() - 512);
    let (mut sender, receiver) = tokio::io::duplex(64 << 10);
    let tmp = place.path("images/tmp");
    let is_unpacked = |name: &str| {
        let staged = fs::read_dir(&tmp).unwrap().flatten();
        let mut staged = staged.map(|entry| entry.path().join("diff"));
        staged.any(|diff| diff.join(name).exists())
    };
    let send = async {
        sender.write_all(whole).await?;
        // The rest is withheld until all layers are unpacked, though nothing can be known of the image yet.
        let start = Instant::now();
        while !(is_unpacked("etc/one") && is_unpacked("two")) {
            ensure!(start.elapsed() < Duration::from_secs(30), "not unpacked");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        sender.write_all(rest).await?;
        drop(sender);
        Ok(())
    };
    let (loaded, sent) = tokio::join!(place.store.load(receiver, no_progress()), send);
    sent?;
    assert_eq!(loaded?.len(), 1);
    expect_image(&place, &archive, "thing:1").await?; // once more, with all there
    assert_eq!(place.content()?.len(), 6);
    Ok(())
}

#[tokio::test]
async fn archives_within_one_that_are_no_layers_of_an_image_do_not_matter() -> Result<()> {
    let place = Place::new()?;
    let layout = Layout::of("thing:1", layers(), Compression::None)?;
    let other = Layer::new().file("other", "").bytes();
    let climbing = Layer::new()
        .add("a", tar::EntryType::Link, 0o644, &[])
        .bytes();
    let cut = other[..700].to_vec();
    for content in [other, climbing, cut] {
        layout.blob(&content, "application/octet-stream")?;
    }
    expect_image(&place, &layout.pack()?, "thing:1").await?;
    // Manifest, configuration, two layers as blobs and unpacked.
    assert_eq!(place.content()?.len(), 6);
    Ok(())
}
