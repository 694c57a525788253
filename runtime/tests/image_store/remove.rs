//! `rmi` and `tag` on disk: what goes, what stays.

use anyhow::Result;
use nuncio_runtime::image::{ImageStore, ImageUse, RemoveImageError, Removed};

use crate::layout::{Compression, Layer, Layout};
use crate::{Place, content, force, wait_for_deletion};

fn unused(_: &str) -> Option<ImageUse> {
    None
}

/// Two images that share their lowest layer.
async fn two_images() -> Result<Place> {
    let place = Place::new()?;
    let base = || Layer::new().file("base", "b");
    for (name, own) in [("one:1", "1"), ("two:1", "2")] {
        let layout = Layout::of(
            name,
            vec![base(), Layer::new().file("own", own)],
            Compression::Gzip,
        )?;
        place.load(&layout.pack()?).await?;
    }
    Ok(place)
}

#[tokio::test]
async fn the_last_name_takes_the_image_but_not_what_others_share() -> Result<()> {
    let place = two_images().await?;
    let one = place.store.find("one:1")?;
    let before = place.content()?.len();
    let removed = place.store.remove("one:1", force(false), unused).await?;
    let expected = [
        Removed::Untagged("one:1".into()),
        Removed::Deleted(one.id.clone()),
        Removed::Deleted(one.layers[1].to_string()),
    ];
    assert_eq!(removed, expected);
    // Its manifest, configuration, and own layer as blob and unpacked.
    assert_eq!(place.content()?.len(), before - 4);
    assert!(place.store.find(&one.id).is_err());
    let root = place.mount(&place.store.find("two:1")?).await?.merged;
    assert_eq!(std::fs::read_to_string(root.join("base"))?, "b");
    place.store.remove_rootfs(&place.path("container")).await?;

    place.store.remove("two:1", force(false), unused).await?;
    assert_eq!(place.content()?, [""; 0]);
    wait_for_deletion(&place.path("images"))
}

#[tokio::test]
async fn one_of_several_names_goes_alone() -> Result<()> {
    let place = two_images().await?;
    place.store.tag("one:1", "other/name").await?;
    let removed = place.store.remove("one:1", force(false), unused).await?;
    assert_eq!(removed, [Removed::Untagged("one:1".into())]);
    assert_eq!(place.store.find("other/name")?.names, ["other/name:latest"]);
    Ok(())
}

#[tokio::test]
async fn a_name_given_to_another_image_leaves_the_first_without() -> Result<()> {
    let place = two_images().await?;
    let one = place.store.find("one:1")?;
    place.store.tag("two:1", "one:1").await?;
    assert_eq!(place.store.find("one:1")?.id, place.store.find("two:1")?.id);
    assert_eq!(place.store.find(&one.id[..15])?.names.len(), 0);
    assert_eq!(place.store.list().len(), 2);
    Ok(())
}

#[tokio::test]
async fn an_image_in_use_stays_and_survives_reopening() -> Result<()> {
    let place = two_images().await?;
    let id = place.store.find("one:1")?.id;
    let used = |running| {
        move |_: &str| {
            Some(ImageUse {
                container: "abc".into(),
                running,
            })
        }
    };
    let refused = place.store.remove("one:1", force(false), used(false)).await;
    assert!(matches!(refused, Err(RemoveImageError::LastName { .. })));
    let refused = place.store.remove(&id, force(true), used(true)).await;
    assert!(matches!(refused, Err(RemoveImageError::Running { .. })));
    let removed = place
        .store
        .remove("one:1", force(true), used(false))
        .await?;
    assert_eq!(removed, [Removed::Untagged("one:1".into())]);
    let Place { dir, store } = place;
    drop(store);
    let root = dir.path().join("images");
    let store = ImageStore::open(&root)?;
    assert_eq!(store.find(&id)?.names.len(), 0);
    let layers = content(&root)?
        .into_iter()
        .filter(|name| name.starts_with("layers/"));
    assert_eq!(layers.count(), 3);
    Ok(())
}
