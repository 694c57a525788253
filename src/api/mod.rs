//! Docker's HTTP and JSON, and nothing else: every request becomes one call of the daemon.

mod archive;
mod attach;
mod audit;
mod body;
mod changes;
mod commit;
mod container_create;
mod container_summary;
mod container_view;
mod containers;
mod dashboard;
mod disk_limits;
mod distribution;
mod endpoint;
mod error;
mod events;
mod exec;
mod filters;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod glob;
mod health;
mod host_options;
mod host_view;
mod image_list;
mod image_platform;
mod image_prune;
mod image_view;
mod images;
mod import;
mod json;
mod load;
mod log_lines;
mod logs;
mod map;
mod mesh;
mod mounts;
mod network_view;
mod networks;
mod nulls;
mod patterns;
mod peek;
mod peers;
mod ports;
mod prune;
mod pull;
mod push;
mod query;
mod raw_stream;
mod registry;
mod registry_auth;
mod restart_policy;
mod rights;
mod save;
mod search;
mod services;
mod slow;
mod stats;
mod steps;
mod swarm;
mod system;
mod top;
mod traced;
mod unbuilt;
mod unbuilt_paths;
mod update;
mod upload;
mod version;
mod volumes;
mod wait;
mod why;

pub(crate) use container_create::parse as container_config;
pub(crate) use peek::router as peek_router;
pub(crate) use registry_auth::parse as registry_account;

#[cfg(test)]
pub(crate) use container_view::tests::record as test_record;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, delete, get, post, put};

use self::error::ApiError;
use crate::daemon::Daemon;

/// What every handler is given.
type Server = State<Arc<Daemon>>;
/// What every handler answers.
type Answer = Result<Response, ApiError>;

/// Docker's API, with and without a version before the paths.
pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    // The version is taken off the path before it is looked up.
    let noted = from_fn_with_state(Arc::clone(&daemon), audit::note);
    let traced =
        (daemon.traces.is_some()).then(|| from_fn_with_state(Arc::clone(&daemon), traced::trace));
    let mut routes = routes().with_state(daemon).layer(noted);
    if let Some(traced) = traced {
        routes = routes.layer(traced);
    }
    Router::new()
        .fallback_service(routes)
        .layer(from_fn(version::negotiate))
        .layer(from_fn(audit::identify))
        .layer(map_response(error::in_form))
}

fn routes() -> Router<Arc<Daemon>> {
    system_routes()
        .merge(container_routes())
        .merge(image_routes())
        .merge(network_routes())
        .merge(volume_routes())
        .merge(swarm::routes())
        .merge(unbuilt_routes())
        .merge(dashboard::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
}

fn system_routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/system/df", get(prune::usage))
        .route("/build/prune", post(prune::builds))
        .route("/events", get(events::events))
        .route("/plugins", get(system::plugins))
        .route("/plugins/{name}/json", get(system::plugin))
        .route("/nuncio/v1/nodes", get(system::nodes))
        .route("/nuncio/v1/nodes/{id}", delete(mesh::remove_node))
        .route(
            "/nuncio/v1/tokens",
            get(mesh::tokens).post(mesh::create_token),
        )
        .route("/nuncio/v1/certificates", post(mesh::certify))
        .route("/nuncio/v1/tokens/{id}", delete(mesh::remove_token))
        .route("/nuncio/v1/registry", get(registry::status))
        .route("/nuncio/v1/peers", get(peers::list).post(peers::add))
        .route("/nuncio/v1/peers/tokens", post(peers::create_token))
        .route("/nuncio/v1/peers/{name}", delete(peers::remove))
        .route(
            "/nuncio/v1/exports/{name}",
            put(peers::export).delete(peers::unexport),
        )
        .route("/nuncio/v1/catalog", get(services::catalog))
        .route("/nuncio/v1/services", post(services::register))
        .route("/nuncio/v1/services/{name}", delete(services::deregister))
        .route("/nuncio/v1/registry/quarantine", get(registry::quarantine))
        .route("/nuncio/v1/tunnel", get(system::tunnel))
        .route("/nuncio/v1/tunnel/keys", post(system::rotate_keys))
        .route("/nuncio/v1/map", get(map::map))
        .route("/nuncio/v1/why", get(why::why))
        .route("/nuncio/v1/stats", get(stats::all))
        .route("/nuncio/v1/flows", get(peek::flows))
        .route("/nuncio/v1/containers/{id}/logs", get(log_lines::logs))
        .route("/nuncio/v1/nodes/{id}/peek/{*path}", get(peek::other))
}

fn container_routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(prune::containers))
        .route(
            "/containers/{id}/archive",
            get(archive::read).head(archive::stat).put(archive::write),
        )
        .route("/containers/{id}/changes", get(archive::changes))
        .route("/containers/{id}/export", get(archive::export))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/{alias}", delete(containers::remove_link))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/update", post(update::update))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/wait", post(wait::wait))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/top", get(top::top))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/exec/{id}/resize", post(exec::resize))
}

fn image_routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/images/json", get(image_list::list))
        .route("/images/create", post(pull::create))
        .route("/auth", post(registry_auth::check))
        .route("/distribution/{*path}", get(distribution::inspect))
        .route("/commit", post(commit::commit))
        .route("/images/search", get(search::find))
        .route("/images/get", get(save::several))
        .route("/images/load", post(load::load))
        .route("/images/prune", post(image_prune::prune))
        // An image's name may have slashes, so what is wanted of it is found from the end.
        .route(
            "/images/{*path}",
            get(images::get).post(images::post).delete(images::remove),
        )
}

fn network_routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune_unused))
        .route(
            "/networks/{name}",
            get(networks::inspect).delete(networks::remove),
        )
        .route("/networks/{name}/connect", post(networks::connect))
        .route("/networks/{name}/disconnect", post(networks::disconnect))
}

fn volume_routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route(
            "/volumes/{name}",
            get(volumes::inspect)
                .delete(volumes::remove)
                .put(async || unbuilt_paths::refuse("cluster volumes")),
        )
}

fn unbuilt_routes() -> Router<Arc<Daemon>> {
    let routes = Router::new();
    unbuilt_paths::UNBUILT
        .iter()
        .fold(routes, |routes, &(path, what)| {
            let refuse = async move |request: Request| {
                body::drain(request.into_body()).await;
                unbuilt_paths::refuse(what)
            };
            routes.route(path, any(refuse))
        })
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "page not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_routes_are_in_each_others_way() {
        let _ = routes(); // axum panics if they are
    }
}
