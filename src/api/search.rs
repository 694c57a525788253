//! `GET /images/search`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use nuncio_runtime::image::{FoundImage, search};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::filters::Filters;
use super::query::{Params, optional};
use super::registry_auth::credentials;
use super::{Answer, Server};
use crate::daemon::refusal::Refusal;

const FILTERS: &[&str] = &["is-automated", "is-official", "stars"];
/// Results unless more are asked for, and the most that may be.
const USUAL: u32 = 25;
const MOST: u32 = 100;

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    term: String,
    #[serde(default, deserialize_with = "optional")]
    limit: Option<u32>,
    filters: Option<String>,
}

pub(crate) async fn find(
    State(daemon): Server,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let limit = match asked.limit {
        None | Some(0) => USUAL,
        Some(limit @ 1..=MOST) => limit,
        Some(limit) => {
            let message = format!("limit {limit} is outside the range of [1, {MOST}]");
            return Err(ApiError::bad_request(message));
        }
    };
    if asked.term.is_empty() {
        return Err(ApiError::bad_request("invalid search: the term is empty"));
    }
    let official = filters.flag("is-official")?;
    let automated = filters.flag("is-automated")?;
    let stars = least_stars(&filters)?;
    let auth = credentials(&headers)?;
    let found = search(&asked.term, limit, &auth, daemon.registries()).await;
    let found = found.map_err(|error| {
        let message = format!("{:#}", anyhow::Error::from(error));
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    let fits = |image: &FoundImage| {
        official.is_none_or(|wanted| wanted == image.is_official)
            && automated.is_none_or(|wanted| wanted == image.is_automated)
            && image.star_count >= stars
    };
    let shown: Vec<Value> = found.iter().filter(|image| fits(image)).map(view).collect();
    super::json::sorted(shown)
}

fn least_stars(filters: &Filters) -> Result<i64, Refusal> {
    let mut least = 0;
    for text in filters.values("stars") {
        let wrong = |_| Refusal::invalid(format!("invalid filter 'stars={text}'"));
        least = least.max(text.parse::<i64>().map_err(wrong)?);
    }
    Ok(least)
}

fn view(image: &FoundImage) -> Value {
    json!({
        "star_count": image.star_count,
        "is_official": image.is_official,
        "name": image.name,
        "is_automated": image.is_automated,
        "description": image.description,
    })
}
