//! Joining families to one server.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::header,
    middleware::{self, Next},
    response::Response,
};
use tower_http::{
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate},
    },
    cors::{AllowOrigin, CorsLayer},
};
use utoipa::{
    OpenApi,
    openapi::{Content, OpenApi as Document, Ref, RefOr, path::Operation},
};
use utoipa_axum::router::OpenApiRouter;

use crate::{Access, ApiError, MAX_TEXT_BYTES, MetricsHandle, Operations, access, body, error, ops};

/// Makes the reply of an error, in a family's form.
pub type RenderError = fn(&ApiError) -> Response;

/// Routes of one protocol.
pub struct Family {
    /// What the paths of all its errors begin with; the empty prefix has all paths that no other family has.
    pub prefix: &'static str,
    /// Routes with their documentation.
    pub routes: OpenApiRouter,
    /// Routes without.
    pub undocumented: Router,
    /// How its errors look.
    pub render: RenderError,
    /// The name of the schema in `routes` of an error's body.
    pub error_schema: &'static str,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "elephant-server",
    description = "The server behind interactive 3-D cell tracking with Mastodon and ELEPHANT. Under /v1, vectors are in \
                   z, y, x order, elsewhere in x, y, z; lengths are micrometres unless a field says voxels.",
    license(name = "BSD-2-Clause", identifier = "BSD-2-Clause")
))]
struct Base;

/// The renderers of all families, by prefix.
#[derive(Clone)]
struct Renderers(Vec<(&'static str, RenderError)>);

impl Renderers {
    fn of_path(&self, path: &str) -> Option<RenderError> {
        // "/v1" as well as "/v1/": a prefix without its last slash is of that family, too.
        let is_below = |prefix: &str| path.starts_with(prefix) || prefix.strip_suffix('/') == Some(path);
        let matching = self.0.iter().filter(|(prefix, _)| is_below(prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, render)| *render)
    }
}

/// One router over all families, with the routes for administrators and for documentation.
pub fn router(families: Vec<Family>, operations: Operations, access: Access, metrics: MetricsHandle) -> Router {
    let renderers = Renderers(families.iter().map(|family| (family.prefix, family.render)).collect());
    let mut documented = OpenApiRouter::with_openapi(Base::openapi());
    let mut undocumented = Router::new();
    for family in families {
        documented = documented.merge(with_documented_errors(family.routes, family.error_schema));
        undocumented = undocumented.merge(family.undocumented);
    }
    let (routes, document) = documented.merge(ops::routes(operations.clone())).split_for_parts();
    let cors = CorsLayer::new().allow_origin(AllowOrigin::list(access.origins().iter().cloned()));
    let compression = DefaultPredicate::new()
        .and(NotForContentType::new("application/octet-stream"))
        .and(NotForContentType::new("application/zip"));
    routes
        .merge(undocumented)
        .merge(ops::metrics_route(metrics, operations))
        .merge(ops::documentation(document))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_TEXT_BYTES))
        .layer(middleware::from_fn_with_state(access.clone(), access::check_token))
        .layer(cors.allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION]).allow_methods(tower_http::cors::Any))
        .layer(middleware::from_fn_with_state(access, access::check_page))
        .layer(middleware::from_fn_with_state(renderers.clone(), render))
        .layer(CompressionLayer::new().compress_when(compression))
        .layer(middleware::from_fn(body::watch_body))
        // What the last layer has refused.
        .layer(middleware::from_fn_with_state(renderers, render))
        .layer(middleware::from_fn(ops::count_request))
        .layer(middleware::from_fn(ops::log_request))
}

/// Gives an error its body, in the form of the family that the path belongs to.
async fn render(State(renderers): State<Renderers>, request: Request, next: Next) -> Response {
    let render = renderers.of_path(request.uri().path());
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    match (error, render) {
        (Some(error), Some(render)) => with_headers_of(render(&error), &response),
        _ => response,
    }
}

/// `rendered`, with those headers of `response` that it has not.
pub(crate) fn with_headers_of(mut rendered: Response, response: &Response) -> Response {
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && !rendered.headers().contains_key(name) {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    rendered
}

/// Says of every error reply that has no body yet what its body is.
fn with_documented_errors(mut routes: OpenApiRouter, schema: &str) -> OpenApiRouter {
    let document: &mut Document = routes.get_openapi_mut();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            document_errors(operation, schema);
        }
    }
    routes
}

fn document_errors(operation: &mut Operation, schema: &str) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
            && response.content.is_empty()
        {
            let content = Content::new(Some(Ref::from_schema_name(schema)));
            response.content.insert("application/json".into(), RefOr::T(content));
        }
    }
}
