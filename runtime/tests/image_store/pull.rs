//! Pulls from a real registry server on loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use anyhow::Result;
use nuncio_runtime::image::{ProgressStatus, PullError, PullOptions, Reference};
use tokio::sync::mpsc;

use crate::flaky::{hold_back, listen, noise};
use crate::layout::{Compression, Layer, Layout};
use crate::registry::Registry;
use crate::{Place, chain, no_progress};

fn install_provider() {
    // Only the first of the tests in this process succeeds.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn pull(place: &Place, name: &str) -> Result<nuncio_runtime::image::Image, PullError> {
    install_provider();
    let reference: Reference = name.parse().unwrap();
    let pulled = place
        .store
        .pull(&reference, PullOptions::default(), no_progress())
        .await?;
    Ok(pulled.image)
}

fn thing() -> Result<Layout> {
    let layers = vec![
        Layer::new().dir("etc").file("etc/one", "1"),
        Layer::new().file("two", "2").file("gone", "x"),
        Layer::new().file(".wh.gone", ""),
    ];
    Layout::of("thing", layers, Compression::Gzip)
}

#[tokio::test]
async fn an_image_comes_with_its_files_and_both_its_names() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let name = registry.push(&thing()?, "thing", "some/thing:1")?;
    let image = pull(&place, &name).await?;
    assert_eq!(image.names, [name.as_str()]);
    assert_eq!(image.digests.len(), 1);
    assert_eq!(place.store.find(&image.digests[0])?.id, image.id);
    let rootfs = place.mount(&image).await?;
    assert_eq!(fs::read_to_string(rootfs.merged.join("etc/one"))?, "1");
    assert!(rootfs.merged.join("two").exists() && !rootfs.merged.join("gone").exists());
    Ok(())
}

#[tokio::test]
async fn a_second_pull_takes_only_what_is_new() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let name = registry.push(&thing()?, "thing", "thing:1")?;
    pull(&place, &name).await?;

    let more = Layout::of(
        "more",
        vec![
            Layer::new().dir("etc").file("etc/one", "1"),
            Layer::new().file("three", "3"),
        ],
        Compression::Gzip,
    )?;
    let name = registry.push(&more, "more", "more:1")?;
    let (sender, mut receiver) = mpsc::channel(1000);
    place
        .store
        .pull(&name.parse()?, PullOptions::default(), sender)
        .await?;
    let mut seen = Vec::new();
    while let Some(progress) = receiver.recv().await {
        seen.push(progress.status);
    }
    let count = |status| seen.iter().filter(|&other| *other == status).count();
    assert_eq!(count(ProgressStatus::AlreadyExists), 1);
    assert_eq!(count(ProgressStatus::Pulling), 1);
    assert_eq!(count(ProgressStatus::Complete), 1);
    assert!(count(ProgressStatus::Downloaded) == 1 && count(ProgressStatus::Extracting) >= 1);
    Ok(())
}

#[tokio::test]
async fn pulls_of_the_same_layers_at_once_share_the_work() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let big = Layer::new().file("big", vec![7; 4 << 20]);
    let layout = Layout::of(
        "thing",
        vec![big, Layer::new().file("two", "2")],
        Compression::None,
    )?;
    let names = ["a:1", "a:2", "b:1", "b:2"].map(|to| registry.push(&layout, "thing", to).unwrap());
    install_provider();
    let (sender, mut progress) = mpsc::channel(10_000);
    let pulls = names.iter().map(async |name| -> Result<_> {
        let (name, options) = (name.parse()?, PullOptions::default());
        let pulled = place.store.pull(&name, options, sender.clone());
        Ok(pulled.await?.image)
    });
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled?.size, (4 << 20) + 1);
    }
    drop(sender);
    let mut whole = 0;
    while let Some(step) = progress.recv().await {
        whole += usize::from(step.status == ProgressStatus::Verifying);
    }
    assert_eq!(whole, 2, "each of the two layers comes in once");
    assert_eq!(place.store.list().len(), 1);
    assert_eq!(place.store.list()[0].names.len(), 4);
    Ok(())
}

#[tokio::test]
async fn of_an_index_the_variant_for_the_platform_is_taken() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let mut layout = Layout::new()?;
    let host = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let ours = layout.image(vec![Layer::new().file("ours", "")], Compression::Gzip, host)?;
    let theirs = layout.image(
        vec![Layer::new().file("theirs", "")],
        Compression::Gzip,
        "s390x",
    )?;
    let index = layout.index(vec![(theirs, "s390x"), (ours, host)])?;
    layout.name("multi", index.clone())?;
    let name = registry.push(&layout, "multi", "multi:1")?;

    let image = pull(&place, &name).await?;
    // The name with a digest is that of the index, by which others know the image too.
    assert!(
        image.digests[0].ends_with(index["digest"].as_str().unwrap()),
        "{image:?}"
    );
    let rootfs = place.mount(&image).await?;
    assert!(rootfs.merged.join("ours").exists());

    let options = PullOptions {
        platform: Some("linux/s390x".parse()?),
        ..PullOptions::default()
    };
    let other = place
        .store
        .pull(&name.parse()?, options, no_progress())
        .await?;
    assert_eq!(other.image.config.architecture().to_string(), "s390x");
    let options = PullOptions {
        platform: Some("linux/mips".parse()?),
        ..PullOptions::default()
    };
    let error = place
        .store
        .pull(&name.parse()?, options, no_progress())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no matching manifest for linux/mips in the manifest list of {name}")
    );
    Ok(())
}

#[tokio::test]
async fn an_image_is_pulled_by_its_digest() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let name = registry.push(&thing()?, "thing", "thing:1")?;
    let by_tag = pull(&place, &name).await?;
    let other = Place::new()?;
    let by_digest = pull(&other, &by_tag.digests[0]).await?;
    assert_eq!(by_digest.id, by_tag.id);
    assert_eq!(
        (by_digest.names.len(), &by_digest.digests),
        (0, &by_tag.digests)
    );
    Ok(())
}

#[tokio::test]
async fn an_unknown_image_is_answered_in_dockers_words() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let name = registry.push(&thing()?, "thing", "thing:1")?;
    let unknown = format!("{}/thing:2", registry.address);
    let error = pull(&place, &unknown).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {unknown} not found: manifest unknown")
    );
    pull(&place, &name).await?;
    Ok(())
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_named_with_the_reason() -> Result<()> {
    let place = Place::new()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?; // closed again at once
    let error = pull(&place, &format!("{address}/thing")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("registry {address} cannot be reached for {address}/thing:latest")
    );
    assert!(chain(error).contains("Connection refused (os error 111)"));
    Ok(())
}

#[tokio::test]
async fn a_registry_whose_name_has_no_address_is_named() -> Result<()> {
    let place = Place::new()?;
    let error = pull(&place, "registry.invalid/thing").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "registry registry.invalid cannot be reached for registry.invalid/thing:latest"
    );
    Ok(())
}

#[tokio::test]
async fn content_with_the_wrong_digest_is_refused_and_leaves_nothing() -> Result<()> {
    let registry = Registry::start()?;
    let layout = thing()?;
    let name = registry.push(&layout, "thing", "thing:1")?;
    let mut tampered = 0;
    for entry in fs::read_dir(layout.dir.path().join("blobs/sha256"))? {
        let hex = entry?.file_name().into_string().unwrap();
        let served = registry.blob_file(&hex);
        let good = fs::read(&served)?;
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&served, bad)?;
        let place = Place::new()?;
        let error = pull(&place, &name).await.unwrap_err();
        let text = chain(error);
        assert!(text.contains(&hex[..12]) || text.contains(&name), "{text}");
        assert_eq!(place.content()?, [""; 0], "{text}");
        assert_eq!(place.store.list().len(), 0);
        fs::write(&served, good)?;
        tampered += 1;
    }
    assert_eq!(tampered, 5, "three layers, configuration, manifest");
    pull(&Place::new()?, &name).await?;
    Ok(())
}

#[tokio::test]
async fn a_layer_the_registry_lost_is_named() -> Result<()> {
    let (registry, place) = (Registry::start()?, Place::new()?);
    let layout = thing()?;
    let name = registry.push(&layout, "thing", "thing:1")?;
    let lost = layout.layer_blob(1)?;
    fs::remove_file(registry.blob_file(&lost))?;
    let text = chain(pull(&place, &name).await.unwrap_err());
    assert!(text.contains(&lost), "{text}");
    assert_eq!(place.content()?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_manifest_without_end_is_not_read_to_its_end() -> Result<()> {
    install_provider();
    let place = Place::new()?;
    let address = listen(|mut client| {
        let mut request = [0; 4096];
        let count = client.read(&mut request)?;
        let begin = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        client.write_all(begin)?;
        while request[..count].starts_with(b"GET /v2/thing/manifests/1 ") {
            client.write_all(&[b' '; 64 << 10])?;
        }
        Ok(())
    })?;
    let error = pull(&place, &format!("{address}/thing:1"))
        .await
        .unwrap_err();
    let expected =
        format!("the manifest of {address}/thing:1 has more than the 4194304 bytes allowed");
    assert_eq!(error.to_string(), expected);
    assert_eq!(place.content()?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_layer_is_unpacked_while_one_beneath_still_comes_in() -> Result<()> {
    install_provider();
    let (registry, place) = (Registry::start()?, Place::new()?);
    let layers = vec![
        Layer::new().file("low", noise(1 << 20)),
        Layer::new().file("high", "2"),
    ];
    let layout = Layout::of("thing", layers, Compression::Gzip)?;
    let name = registry.push(&layout, "thing", "thing:1")?;
    let lowest = layout.layer_blob(0)?;
    // The lowest layer's content is withheld until the one on it is unpacked.
    let tmp = place.path("images/tmp");
    let is_unpacked = move || {
        let staged = fs::read_dir(&tmp).unwrap().flatten();
        let mut staged = staged.map(|entry| entry.path().join("diff/high"));
        staged.any(|file| file.exists())
    };
    let address = hold_back(registry.address.clone(), lowest, is_unpacked)?;
    let image = pull(&place, &name.replace(&registry.address, &address)).await?;
    assert_eq!((image.size, image.layers.len()), ((1 << 20) + 1, 2));
    let merged = place.mount(&image).await?.merged;
    assert_eq!(fs::read_to_string(merged.join("high"))?, "2");
    assert_eq!(fs::read(merged.join("low"))?, noise(1 << 20));
    Ok(())
}

#[tokio::test]
async fn a_broken_layer_ends_the_pull_though_another_does_not_come() -> Result<()> {
    install_provider();
    let (registry, place) = (Registry::start()?, Place::new()?);
    let layers = vec![
        Layer::new().file("low", noise(1 << 20)),
        Layer::new().file("high", noise(1 << 20)),
    ];
    let layout = Layout::of("thing", layers, Compression::Gzip)?;
    let name = registry.push(&layout, "thing", "thing:1")?;
    let served = registry.blob_file(&layout.layer_blob(1)?);
    let mut bad = fs::read(&served)?;
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&served, bad)?;
    let address = hold_back(registry.address.clone(), layout.layer_blob(0)?, || false)?;
    let name = name.replace(&registry.address, &address);
    let error = chain(pull(&place, &name).await.unwrap_err());
    assert!(error.contains(&layout.layer_blob(1)?), "{error}");
    assert_eq!(place.content()?, [""; 0]);
    Ok(())
}
