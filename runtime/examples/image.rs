//! Keeps images in a directory and mounts one: `image DIR load FILE | pull NAME | list | mount NAME AT | umount AT`.

use std::path::Path;

use anyhow::{Result, bail};
use nuncio_runtime::image::{ImageStore, Progress, PullOptions};
use tokio::fs::File;
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [dir, command @ ..] = args.as_slice() else {
        bail!("give the directory of the images first");
    };
    let store = ImageStore::open(Path::new(dir))?;
    match *command {
        ["load", file] => {
            let loading = store.load(File::open(file).await?, print_progress());
            for loaded in loading.await? {
                println!("{} {}", loaded.id, loaded.names.join(" "));
            }
        }
        ["pull", name] => {
            // The provider is the program's choice; a library only uses it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let image = store
                .pull(&name.parse()?, PullOptions::default(), print_progress())
                .await?
                .image;
            println!("{} {}", image.id, image.digests.join(" "));
        }
        ["list"] => {
            for image in store.list() {
                println!(
                    "{} {} bytes {}",
                    &image.id,
                    image.size,
                    image.names.join(" ")
                );
            }
        }
        ["mount", name, at] => {
            let rootfs = store.mount(&store.find(name)?, Path::new(at)).await?;
            println!("{}", rootfs.merged.display());
        }
        ["umount", at] => store.remove_rootfs(Path::new(at)).await?,
        _ => bail!("load FILE, pull NAME, list, mount NAME AT or umount AT"),
    }
    Ok(())
}

fn print_progress() -> mpsc::Sender<Progress> {
    let (sender, mut reports) = mpsc::channel::<Progress>(1024);
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            println!(
                "{}: {} {}/{}",
                report.id, report.status, report.current, report.total
            );
        }
    });
    sender
}
