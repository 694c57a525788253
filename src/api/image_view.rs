//! An image as `images` and `inspect` show it.

use std::collections::HashMap;

use bollard_stubs::models::{
    DriverData, ImageConfig, ImageInspect, ImageInspectRootFs, ImageSummary,
};
use jiff::Timestamp;
use nuncio_runtime::image::Image;

pub(crate) fn summary(image: &Image) -> ImageSummary {
    let config = image.config.config().as_ref();
    ImageSummary {
        id: image.id.clone(),
        parent_id: String::new(),
        repo_tags: image.names.clone(),
        repo_digests: image.digests.clone(),
        created: created(image).map_or(0, Timestamp::as_second),
        size: size(image),
        shared_size: -1,
        labels: config
            .and_then(|config| config.labels().clone())
            .unwrap_or_default(),
        containers: -1,
        ..ImageSummary::default()
    }
}

pub(crate) fn inspect(image: &Image) -> ImageInspect {
    let whole = &image.config;
    ImageInspect {
        id: Some(image.id.clone()),
        repo_tags: Some(image.names.clone()),
        repo_digests: Some(image.digests.clone()),
        parent: Some(String::new()),
        comment: Some(String::new()),
        created: created(image).map(|created| created.to_string()),
        docker_version: Some(String::new()),
        author: Some(whole.author().clone().unwrap_or_default()),
        config: Some(config(image)),
        architecture: Some(whole.architecture().to_string()),
        os: Some(whole.os().to_string()),
        size: Some(size(image)),
        graph_driver: Some(DriverData {
            name: "overlayfs".to_owned(),
            data: HashMap::new(),
        }),
        root_fs: Some(ImageInspectRootFs {
            typ: "layers".to_owned(),
            layers: Some(whole.rootfs().diff_ids().clone()),
        }),
        ..ImageInspect::default()
    }
}

fn created(image: &Image) -> Option<Timestamp> {
    image.created.and_then(|created| created.try_into().ok())
}

fn size(image: &Image) -> i64 {
    i64::try_from(image.size).unwrap_or(i64::MAX)
}

fn config(image: &Image) -> ImageConfig {
    let Some(config) = image.config.config() else {
        return ImageConfig::default();
    };
    let keys = |list: &Option<Vec<String>>| {
        list.as_ref().map(|list| {
            list.iter()
                .map(|key| (key.clone(), HashMap::new()))
                .collect()
        })
    };
    ImageConfig {
        user: Some(config.user().clone().unwrap_or_default()),
        exposed_ports: keys(config.exposed_ports()),
        env: config.env().clone(),
        entrypoint: config.entrypoint().clone(),
        cmd: config.cmd().clone(),
        volumes: keys(config.volumes()),
        working_dir: Some(config.working_dir().clone().unwrap_or_default()),
        labels: config.labels().clone(),
        stop_signal: config.stop_signal().clone(),
        ..ImageConfig::default()
    }
}
