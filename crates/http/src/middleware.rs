//! The middleware around [`Web`], from the outside: the activity of the connection, the request id, the resource, the span
//! with metrics and access log, default headers, CORS, and compression of responses.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use tower::util::{BoxCloneSyncService, option_layer};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::CompressionLevel;
use tower_http::classify::{NeverClassifyEos, ServerErrorsFailureClass};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionBody, CompressionLayer};
use tower_http::cors::CorsLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::{self, TraceLayer};
use warp::http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::http::{Request, Response, Version};

use super::access_log::{self, AccessLog};
use super::api;
use super::delivered_body::DeliveredBody;
use super::request_id;
use super::resource::Kind;
use super::response_budget::{BudgetedBody, WarpBody};
use super::service::{ConnectionInfo, Handled, Route, Web};
use telemetry::Metrics;

/// Smaller responses are not compressed: a count fits one packet, and compression would only cost CPU time.
const MIN_COMPRESSED_BYTES: u16 = 1024;

/// The body of a response behind all layers.
type LayeredBody = trace::ResponseBody<
    CompressionBody<BudgetedBody<WarpBody>>,
    NeverClassifyEos<ServerErrorsFailureClass>,
    (),
    (),
    (),
>;

/// [`Web`] with all layers.
pub(super) type Stack = BoxCloneSyncService<Request<Incoming>, Response<LayeredBody>, Infallible>;

/// The outermost service, one for each connection: it records the activity of the connection.
pub(super) struct ConnectionService {
    pub(super) stack: Arc<Stack>,
    pub(super) connection: ConnectionInfo,
}

/// `web` with all layers. All connections share it.
pub(super) fn around(web: Web, cors: Option<CorsLayer>, metrics: &Arc<Metrics>) -> Stack {
    let web = Arc::new(web);
    let inner = tower::service_fn(move |request| {
        let web = Arc::clone(&web);
        async move { web.handle(request).await }
    });
    let compressible = SizeAbove::new(MIN_COMPRESSED_BYTES)
        .and(NotForContentType::SSE)
        .and(NotForContentType::IMAGES);
    // The largest response, the script of the viewer, needs no token: at the default level it costs 2.6 times the CPU time.
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(compressible);
    let id = request_id::REQUEST_ID;
    // Counts change all the time, and some need a token, so no cache may keep them.
    let no_store = HeaderValue::from_static("no-store");
    // A browser must not guess another type than `content-type`.
    let no_sniff = HeaderValue::from_static("nosniff");
    let stack = ServiceBuilder::new()
        .map_request(request_id::without_implausible)
        .map_request(with_route)
        .layer(SetRequestIdLayer::new(id.clone(), request_id::Random))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(access_log::span)
                .on_request(())
                .on_response(AccessLog::new(Arc::clone(metrics)))
                .on_body_chunk(())
                .on_eos(())
                .on_failure(()),
        )
        .layer(PropagateRequestIdLayer::new(id))
        .layer(SetResponseHeaderLayer::if_not_present(
            CACHE_CONTROL,
            no_store,
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            X_CONTENT_TYPE_OPTIONS,
            no_sniff,
        ))
        .layer(option_layer(cors))
        .layer(compression)
        .service(inner);
    BoxCloneSyncService::new(stack)
}

fn with_route<B>(mut request: Request<B>) -> Request<B> {
    let route = Route(api::find(request.uri().path()));
    request.extensions_mut().insert(route);
    request
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<DeliveredBody<LayeredBody>>;
    type Error = Infallible;
    // Boxed, because a connection has the space of this future also while it is idle.
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let activity = Arc::clone(&self.connection.activity);
        if request.version() == Version::HTTP_2 {
            activity.mark_http2();
        }
        let handling = activity.begin_request();
        request.extensions_mut().insert(self.connection.clone());
        let stack = Stack::clone(&self.stack);
        Box::pin(async move {
            let _handling = handling;
            let mut response = stack.oneshot(request).await?;
            let handled = response.extensions_mut().remove::<Handled>();
            // An event stream has no time limit.
            let is_stream = handled.is_some_and(|handled| handled.route.kind == Kind::Stream);
            let delivery = (!is_stream).then(|| activity.begin_delivery());
            Ok(response.map(|body| DeliveredBody::new(body, delivery)))
        })
    }
}
