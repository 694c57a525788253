//! `GET /images/json`: which images there are, narrowed by filters.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use axum::Extension;
use axum::extract::State;
use bollard_stubs::models::ImageSummary;
use nuncio_runtime::image::Image;
use serde::Deserialize;

use super::error::ApiError;
use super::filters::Filters;
use super::query::{Flag, Params};
use super::version::{ApiVersion, EMPTY_NAMES};
use super::{Answer, Server, glob, image_view, json};
use crate::cli::Moment;
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

const FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];

#[derive(Deserialize)]
pub(crate) struct List {
    #[serde(default)]
    all: Flag,
    filters: Option<String>,
    /// What `reference` was called before there were filters.
    filter: Option<String>,
}

pub(crate) async fn list(
    State(daemon): Server,
    Extension(version): Extension<ApiVersion>,
    Params(asked): Params<List>,
) -> Answer {
    let mut filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    if let Some(name) = asked.filter.filter(|name| !name.is_empty()) {
        filters.add("reference", name);
    }
    let chooser = Chooser::new(&daemon, filters, asked.all.0)?;
    let images = daemon.images().list();
    let parents: HashSet<&String> = images.iter().filter_map(|i| i.parent.as_ref()).collect();
    let mut summaries: Vec<ImageSummary> = Vec::new();
    for image in &images {
        if let Some(shown) = chooser.choose(image, parents.contains(&image.id))? {
            summaries.push(image_view::summary(&shown, version < EMPTY_NAMES));
        }
    }
    summaries.sort_by_key(|summary| std::cmp::Reverse(summary.created));
    json::sorted(summaries)
}

/// What is asked for, with the images that the filters name found.
struct Chooser {
    filters: Filters,
    all: bool,
    dangling: Option<bool>,
    before: Option<SystemTime>,
    since: Option<SystemTime>,
}

impl Chooser {
    fn new(daemon: &Daemon, filters: Filters, all: bool) -> Result<Self, ApiError> {
        let made = |name: &str| match daemon.images().find(name) {
            Ok(image) => Ok(image.created),
            Err(error) => Err(super::images::unfound(&error)),
        };
        let times = |key| filters.values(key).map(made);
        let before = times("before").collect::<Result<Vec<_>, _>>()?;
        let since = times("since").collect::<Result<Vec<_>, _>>()?;
        let until = filters.values("until").map(moment);
        let until = until.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            dangling: filters.flag("dangling")?,
            before: before.into_iter().flatten().chain(until).min(),
            since: since.into_iter().flatten().max(),
            filters,
            all,
        })
    }

    /// The image with those of its names that were asked for, if it is one to show.
    fn choose(&self, image: &Image, is_parent: bool) -> Result<Option<Image>, Refusal> {
        let labels: BTreeMap<String, String> = labels(image);
        let in_time = |limit: Option<SystemTime>, fits: fn(&SystemTime, &SystemTime) -> bool| {
            limit.is_none_or(|limit| image.created.is_some_and(|made| fits(&made, &limit)))
        };
        let fits = in_time(self.before, SystemTime::lt)
            && in_time(self.since, SystemTime::gt)
            && self.filters.labels(&labels);
        if !fits {
            return Ok(None);
        }
        let mut shown = image.clone();
        if self.filters.has("reference") {
            shown.names = self.named(&image.names)?;
            shown.digests = self.named(&image.digests)?;
        }
        let is_shown = if shown.names.is_empty() && shown.digests.is_empty() {
            (self.all || !is_parent)
                && self.dangling != Some(false)
                && !self.filters.has("reference")
                && !(self.dangling == Some(true) && is_parent)
        } else {
            self.dangling != Some(true) || shown.names.is_empty()
        };
        Ok(is_shown.then_some(shown))
    }

    /// Those that fit one of the patterns, with or without their tag or digest.
    fn named(&self, names: &[String]) -> Result<Vec<String>, Refusal> {
        let mut chosen = Vec::new();
        for name in names {
            let (repository, _) = name
                .split_once('@')
                .or_else(|| name.rsplit_once(':'))
                .unwrap_or((name, ""));
            for pattern in self.filters.values("reference") {
                if glob::matches(pattern, name)? || glob::matches(pattern, repository)? {
                    chosen.push(name.clone());
                    break;
                }
            }
        }
        Ok(chosen)
    }
}

pub(super) fn labels(image: &Image) -> BTreeMap<String, String> {
    let config = image.config.config().as_ref();
    let labels = config.and_then(|config| config.labels().clone());
    labels.unwrap_or_default().into_iter().collect()
}

/// A point in time as `until` gives it: how long ago, or when.
pub(super) fn moment(text: &str) -> Result<SystemTime, Refusal> {
    let moment: Moment = text
        .parse()
        .map_err(|error| Refusal::invalid(format!("{error}")))?;
    let time = moment.timestamp().try_into();
    time.map_err(|_| Refusal::invalid(format!("invalid time {text:?}: it is out of range")))
}
