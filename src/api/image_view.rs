//! An image as `images` and `inspect` show it.

use std::collections::HashMap;

use bollard_stubs::models::{
    DriverData, ImageConfig, ImageInspect, ImageInspectMetadata, ImageInspectRootFs, ImageSummary,
};
use jiff::Timestamp;
use nuncio_runtime::image::{Image, ImageStore};
use serde::Serialize;

/// How Go writes a time that is none.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// As the list has it. Before 1.43 what has no name is called `<none>`.
pub(crate) fn summary(image: &Image, named_none: bool) -> ImageSummary {
    let config = image.config.config().as_ref();
    let names = |names: &[String], none: &str| match names {
        [] if named_none => vec![none.to_owned()],
        names => names.to_vec(),
    };
    ImageSummary {
        id: image.id.clone(),
        parent_id: image.parent.clone().unwrap_or_default(),
        repo_tags: names(&image.names, "<none>:<none>"),
        repo_digests: names(&image.digests, "<none>@<none>"),
        created: created(image).map_or(0, Timestamp::as_second),
        size: size(image),
        virtual_size: named_none.then(|| size(image)),
        shared_size: -1,
        labels: config
            .and_then(|config| config.labels().clone())
            .unwrap_or_default(),
        containers: -1,
        ..ImageSummary::default()
    }
}

/// As `inspect` has it; before 1.44 with its size under two names.
pub(crate) fn inspect(image: &Image, two_sizes: bool) -> ImageInspect {
    let whole = &image.config;
    let tagged = image.last_tagged.and_then(|time| time.try_into().ok());
    ImageInspect {
        id: Some(image.id.clone()),
        repo_tags: Some(image.names.clone()),
        repo_digests: Some(image.digests.clone()),
        parent: Some(image.parent.clone().unwrap_or_default()),
        comment: Some(comment(image)),
        created: created(image).map(|created| created.to_string()),
        docker_version: Some(image.docker.docker_version.clone()),
        author: Some(whole.author().clone().unwrap_or_default()),
        config: Some(config(image)),
        architecture: Some(whole.architecture().to_string()),
        variant: whole.variant().clone(),
        os: Some(whole.os().to_string()),
        os_version: whole.os_version().clone(),
        size: Some(size(image)),
        virtual_size: two_sizes.then(|| size(image)),
        metadata: Some(ImageInspectMetadata {
            last_tag_time: Some(
                tagged.map_or(NEVER.to_owned(), |time: Timestamp| time.to_string()),
            ),
        }),
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

/// What was said of it when it was made.
fn comment(image: &Image) -> String {
    let history = image.config.history().iter().flatten();
    let last = || history.last().and_then(|step| step.comment().clone());
    match image.docker.comment.as_str() {
        "" => last().unwrap_or_default(),
        comment => comment.to_owned(),
    }
}

/// A step in which an image was made.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Step {
    id: String,
    created: i64,
    created_by: String,
    tags: Option<Vec<String>>,
    size: i64,
    comment: String,
}

/// The steps in which an image was made, the last one first, as its configuration tells.
pub(crate) fn history(image: &Image, store: &ImageStore) -> Vec<Step> {
    let mut layers = image.layers.iter();
    let mut steps: Vec<Step> = Vec::new();
    for step in image.config.history().iter().flatten() {
        let layer = if step.empty_layer() == Some(true) {
            None
        } else {
            layers.next()
        };
        let bytes = layer
            .and_then(|&layer| store.layer_size(layer))
            .unwrap_or(0);
        let created = step.created().as_deref().and_then(|time| time.parse().ok());
        steps.push(Step {
            id: "<missing>".to_owned(),
            created: created.map_or(0, |time: Timestamp| time.as_second()),
            created_by: step.created_by().clone().unwrap_or_default(),
            tags: None,
            size: i64::try_from(bytes).unwrap_or(i64::MAX),
            comment: step.comment().clone().unwrap_or_default(),
        });
    }
    steps.reverse();
    let mut known = Some(image.clone());
    for step in &mut steps {
        let Some(image) = known else { break };
        step.id.clone_from(&image.id);
        step.tags = (!image.names.is_empty()).then_some(image.names);
        known = image.parent.and_then(|parent| store.find(&parent).ok());
    }
    steps
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
    let docker = &image.docker;
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
        healthcheck: docker
            .healthcheck
            .clone()
            .and_then(|check| serde_json::from_value(check).ok()),
        on_build: (!docker.on_build.is_empty()).then(|| docker.on_build.clone()),
        shell: (!docker.shell.is_empty()).then(|| docker.shell.clone()),
        ..ImageConfig::default()
    }
}
