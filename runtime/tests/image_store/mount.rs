//! Roots put together by overlayfs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use nuncio_runtime::image::{ImageStore, MountError};

use crate::layout::{Compression, Layer, Layout};
use crate::{Place, chain};

#[tokio::test]
async fn whiteouts_work_across_three_layers() -> Result<()> {
    let place = Place::new()?;
    let layers = vec![
        Layer::new()
            .file("removed", "1")
            .file("replaced", "1")
            .file("kept", "1")
            .dir("emptied")
            .file("emptied/a", "1")
            .dir("gone")
            .file("gone/a", "1")
            .dir("turned")
            .file("turned/a", "1")
            .dir("back")
            .file("back/old", "1"),
        Layer::new()
            .file(".wh.removed", "")
            .file("replaced", "2")
            .dir("emptied")
            .file("emptied/.wh..wh..opq", "")
            .file("emptied/b", "2")
            .file(".wh.gone", "")
            .file(".wh.turned", "")
            .file("turned", "a file now")
            .file(".wh.back", ""),
        Layer::new()
            .file("gone", "a file in the place of a directory")
            .dir("emptied")
            .file("emptied/c", "3")
            .dir("back")
            .file("back/new", "3")
            .file(".wh.nothing", ""),
    ];
    place
        .load(&Layout::of("thing:1", layers, Compression::Gzip)?.pack()?)
        .await?;
    let root = place.mount(&place.store.find("thing:1")?).await?.merged;
    let names = |dir: &str| -> Result<Vec<String>> {
        let mut names: Vec<_> = fs::read_dir(root.join(dir))?
            .map(|entry| entry.map(|entry| entry.file_name().display().to_string()))
            .collect::<Result<_, _>>()?;
        names.sort();
        Ok(names)
    };
    assert_eq!(
        names(".")?,
        ["back", "emptied", "gone", "kept", "replaced", "turned"]
    );
    assert_eq!(names("emptied")?, ["b", "c"]);
    assert_eq!(names("back")?, ["new"]);
    assert_eq!(fs::read_to_string(root.join("replaced"))?, "2");
    assert_eq!(fs::read_to_string(root.join("turned"))?, "a file now");
    Ok(())
}

#[tokio::test]
async fn changes_stay_with_the_container_until_it_is_removed() -> Result<()> {
    let place = Place::new()?;
    let layer = Layer::new()
        .add(".", tar::EntryType::Directory, 0o750, &[])
        .file("a", "image");
    place
        .load(&Layout::of("thing:1", vec![layer], Compression::None)?.pack()?)
        .await?;
    let image = place.store.find("thing:1")?;
    let dir = place.path("container");
    let root = place.mount(&image).await?.merged;
    assert_eq!(fs::metadata(&root)?.mode() & 0o7777, 0o750);
    fs::write(root.join("a"), "container")?;
    assert_eq!(
        place.mount(&image).await?.merged,
        root,
        "mounting twice is fine"
    );
    place.store.unmount(&dir).await?;
    place.store.unmount(&dir).await?;
    assert_eq!(fs::read_dir(&root)?.count(), 0);
    assert_eq!(
        fs::read_to_string(place.mount(&image).await?.merged.join("a"))?,
        "container"
    );
    place.store.remove_rootfs(&dir).await?;
    place.store.remove_rootfs(&dir).await?;
    assert_eq!(fs::read_dir(&dir)?.count(), 0);
    assert_eq!(
        fs::read_to_string(place.mount(&image).await?.merged.join("a"))?,
        "image"
    );
    Ok(())
}

#[tokio::test]
async fn more_layers_than_a_page_of_options_holds() -> Result<()> {
    let place = Place::new()?;
    let layers = (0..127).map(|n| {
        Layer::new()
            .file(&format!("f{n}"), n.to_string())
            .file("last", n.to_string())
    });
    place
        .load(&Layout::of("deep:1", layers.collect(), Compression::None)?.pack()?)
        .await?;
    let root = place.mount(&place.store.find("deep:1")?).await?.merged;
    assert_eq!(fs::read_dir(&root)?.count(), 128);
    assert_eq!(fs::read_to_string(root.join("last"))?, "126");
    Ok(())
}

#[tokio::test]
async fn paths_with_characters_that_mount_options_use() -> Result<()> {
    let place = Place::new()?;
    let store = ImageStore::open(&place.path("a:b,c\\d"))?;
    let archive = Layout::of(
        "thing:1",
        vec![Layer::new().file("a", "x")],
        Compression::None,
    )?
    .pack()?;
    store.load(&archive[..], crate::no_progress()).await?;
    let root = store
        .mount(&store.find("thing:1")?, &place.path("x:y,z"))
        .await?
        .merged;
    fs::write(root.join("b"), "y")?;
    assert_eq!(fs::read_to_string(root.join("a"))?, "x");
    store.remove_rootfs(&place.path("x:y,z")).await?;
    Ok(())
}

#[tokio::test]
async fn an_image_without_layers_is_an_empty_root() -> Result<()> {
    let place = Place::new()?;
    place
        .load(&Layout::of("scratch:1", vec![], Compression::None)?.pack()?)
        .await?;
    let root = place.mount(&place.store.find("scratch:1")?).await?.merged;
    assert_eq!(fs::read_dir(&root)?.count(), 0);
    fs::write(root.join("a"), "x")?;
    Ok(())
}

#[tokio::test]
async fn a_layer_that_is_gone_is_named_and_nothing_stays_mounted() -> Result<()> {
    let place = Place::new()?;
    place
        .load(
            &Layout::of(
                "thing:1",
                vec![Layer::new().file("a", "x")],
                Compression::None,
            )?
            .pack()?,
        )
        .await?;
    let image = place.store.find("thing:1")?;
    let hex = image.layers[0].to_string().replace("sha256:", "");
    fs::remove_dir_all(place.path("images/layers").join(hex))?;
    let error = place
        .store
        .mount(&image, &place.path("container"))
        .await
        .unwrap_err();
    assert!(matches!(error, MountError::LayerMissing { .. }));
    assert!(
        chain(error).ends_with("pull or load it again: No such file or directory (os error 2)")
    );
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&place.path("container").display().to_string()));
    Ok(())
}
