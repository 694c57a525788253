//! Pushing to a real registry.

use std::fs;

use anyhow::Result;
use nuncio_runtime::image::{ProgressStatus, PullOptions, PushOptions, Reference};
use tokio::sync::mpsc;

use crate::layout::{Compression, Layer, Layout};
use crate::registry::Registry;
use crate::{Place, content, no_progress};

/// How each layer fared in a push.
async fn push(place: &Place, name: &Reference) -> Result<Vec<ProgressStatus>> {
    let (sender, mut progress) = mpsc::channel(1000);
    let options = PushOptions::default();
    place.store.push(name, options, sender).await?;
    let mut last = Vec::new();
    while let Some(step) = progress.recv().await {
        last.push(step.status);
    }
    Ok(last)
}

#[tokio::test]
async fn a_plain_layer_goes_out_compressed_and_only_once() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (registry, place, other) = (Registry::start()?, Place::new()?, Place::new()?);
    let name: Reference = format!("{}/thing:1", registry.address).parse()?;
    let layer = Layer::new().file("zeros", vec![0; 1 << 20]);
    let layout = Layout::of(&name.to_string(), vec![layer], Compression::None)?;
    place.load(&layout.pack()?).await?;
    let before = content(&place.path("images"))?;

    assert!(push(&place, &name).await?.contains(&ProgressStatus::Pushed));
    let again = push(&place, &name).await?;
    assert!(again.contains(&ProgressStatus::LayerExists), "{again:?}");
    // What was compressed for it is not kept.
    assert_eq!(content(&place.path("images"))?, before);

    let pulled = other
        .store
        .pull(&name, PullOptions::default(), no_progress());
    let pulled = pulled.await?;
    let own = place.store.find(&name.familiar())?;
    assert_eq!(pulled.image.id, own.id);
    assert_eq!(pulled.image.size, 1 << 20);
    // Both know the image by the digest that the registry has.
    assert!(
        own.digests.contains(&pulled.image.digests[0]),
        "{:?}",
        own.digests
    );
    let blobs = other.path("images").join("blobs/sha256");
    let sizes = fs::read_dir(blobs)?.map(|blob| Ok(blob?.metadata()?.len()));
    let largest = sizes.collect::<Result<Vec<_>>>()?.into_iter().max();
    assert!(largest < Some(64 << 10), "{largest:?}");
    Ok(())
}
