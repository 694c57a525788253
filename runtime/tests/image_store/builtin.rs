//! Images made of one binary.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use oci_spec::image::{Config, ConfigBuilder};

use crate::{Place, force, wait_for_deletion};

const NAMES: [&str; 2] = ["nuncio/ambassador", "svendowideit/ambassador"];

fn config() -> Config {
    ConfigBuilder::default()
        .entrypoint(["/nuncio".to_owned(), "echo".to_owned()])
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_static_binary_runs_in_its_image() -> Result<()> {
    let place = Place::new()?;
    let ldconfig = Path::new("/sbin/ldconfig"); // static in Debian, and always there
    let image = place
        .store
        .install_builtin(&NAMES, ldconfig, config())
        .await?;
    assert_eq!(
        image.names,
        ["nuncio/ambassador:latest", "svendowideit/ambassador:latest"]
    );
    assert_eq!(image.size, fs::metadata(ldconfig)?.len());
    let root = place
        .mount(&place.store.find("svendowideit/ambassador")?)
        .await?
        .merged;
    let mode = |name: &str| fs::metadata(root.join(name)).map(|found| found.mode() & 0o7777);
    assert_eq!(
        (mode("nuncio")?, mode("tmp")?, mode("etc")?),
        (0o755, 0o1777, 0o755)
    );
    let ran = Command::new("chroot")
        .arg(&root)
        .args(["/nuncio", "--version"])
        .output()?;
    assert!(String::from_utf8(ran.stdout)?.starts_with("ldconfig "));
    Ok(())
}

#[tokio::test]
async fn it_is_made_again_only_when_the_binary_changes() -> Result<()> {
    let place = Place::new()?;
    let binary = place.path("binary");
    fs::write(&binary, "#!first")?;
    let first = place
        .store
        .install_builtin(&NAMES, &binary, config())
        .await?;
    let again = place
        .store
        .install_builtin(&NAMES, &binary, config())
        .await?;
    assert_eq!(again.id, first.id);

    // The same content in another file is the same image.
    fs::copy(&binary, place.path("copy"))?;
    let copied = place
        .store
        .install_builtin(&NAMES, &place.path("copy"), config())
        .await?;
    assert_eq!(copied.id, first.id);
    assert_eq!(place.store.list().len(), 1);

    fs::write(&binary, "#!second, longer")?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let second = place
        .store
        .install_builtin(&NAMES, &binary, config())
        .await?;
    assert_ne!(second.id, first.id);
    assert_eq!(place.store.find(NAMES[0])?.id, second.id);
    // Nobody pulled the first one, but a container may still need it: it stays without names.
    assert_eq!(place.store.find(&first.id)?.names.len(), 0);
    Ok(())
}

#[tokio::test]
async fn it_comes_back_after_its_removal() -> Result<()> {
    let place = Place::new()?;
    let binary = place.path("binary");
    fs::write(&binary, "#!x")?;
    let first = place
        .store
        .install_builtin(&NAMES, &binary, config())
        .await?;
    place.store.remove(&first.id, force(true), |_| None).await?;
    assert_eq!(place.content()?, [""; 0]);
    wait_for_deletion(&place.path("images"))?;
    let again = place
        .store
        .install_builtin(&NAMES, &binary, config())
        .await?;
    assert_eq!(again.id, first.id);
    place.mount(&again).await?;
    Ok(())
}
