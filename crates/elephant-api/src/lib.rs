//! The HTTP interface: one folder per API family.
//!
//! A handler parses its request, calls one function of `elephant-pipeline` and returns the result; errors become HTTP in
//! [`problem`]. `elephant` is the ELEPHANT server's own protocol (`ELEPHANT` clients cannot tell the difference), `ops`
//! what an administrator needs.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod access;
mod body;
mod connections;
mod elephant;
mod job;
mod json;
mod multipart;
mod number;
mod ops;
mod problem;
mod queue;
mod services;
mod status_line;

use axum::{Router, extract::DefaultBodyLimit, http::header, middleware};
use tower_http::{
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate},
    },
    cors::{AllowOrigin, CorsLayer},
    trace::TraceLayer,
};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use access::{Access, AccessError};
pub use connections::serve;
pub use ops::MetricsHandle;
pub use services::Services;

/// The largest body of a request that describes something in JSON or as a form.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// The largest body that brings a file: a piece of a movie (the client's have 10 MiB) or a model with its ensemble.
const MAX_FILE_BYTES: usize = 256 << 20;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "elephant-server",
        description = "The server behind interactive 3-D cell tracking with Mastodon and ELEPHANT. Vectors in requests \
                       and replies are in x, y, z order; lengths are micrometres unless a field says voxels.",
        license(name = "BSD-2-Clause", identifier = "BSD-2-Clause")
    ),
    tags(
        (name = "state", description = "What the server is doing and on which device"),
        (name = "dataset", description = "Movies and the stores made from them"),
        (name = "seg", description = "Detection of cells and the models for it"),
        (name = "ops", description = "For administrators"),
    )
)]
struct Document;

/// All routes of the server.
pub fn router(services: Services, access: Access, metrics: MetricsHandle) -> Router {
    let (routes, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(elephant::routes())
        .merge(ops::routes())
        .split_for_parts();
    let cors = CorsLayer::new().allow_origin(AllowOrigin::list(access.origins().iter().cloned()));
    let compression = DefaultPredicate::new().and(NotForContentType::new("application/octet-stream"));
    routes
        .merge(elephant::old_routes())
        .with_state(services.clone())
        .merge(ops::metrics_route(metrics, services))
        .merge(ops::documentation(document))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_TEXT_BYTES))
        .layer(middleware::from_fn_with_state(access.clone(), access::check_token))
        .layer(cors.allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION]).allow_methods(tower_http::cors::Any))
        .layer(middleware::from_fn_with_state(access, access::check_page))
        .layer(CompressionLayer::new().compress_when(compression))
        .layer(middleware::from_fn(body::watch_body))
        .layer(middleware::from_fn(ops::count_request))
        .layer(middleware::from_fn(ops::log_request))
        // Failures are logged where they become a reply.
        .layer(TraceLayer::new_for_http().on_failure(()))
}
