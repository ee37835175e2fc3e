//! The middleware around [`Web`], from the outside: the activity of the connection, the resource, default headers, the request
//! id, the span with metrics and access log, CORS, and compression of responses.
//!
//! Each layer moves the request, the response and the future of the next layer: about 0.15 microseconds of CPU time. So what
//! needs no layer of `tower-http` happens in one function around all of them.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use tower::util::option_layer;
use tower::{Service, ServiceBuilder};
use tower_http::CompressionLevel;
use tower_http::classify::{NeverClassifyEos, ServerErrorsFailureClass};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionBody, CompressionLayer};
use tower_http::cors::CorsLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::trace::{self, TraceLayer};
use warp::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::http::{Request, Response, Version};

use super::access_log::{self, AccessLog};
use super::api;
use super::delivered_body::DeliveredBody;
use super::request_id;
use super::resource::Kind;
use super::response_budget::{BudgetedBody, WarpBody};
use super::service::{ConnectionInfo, Entrance, Handled, RequestContext, Web};
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

/// A response that the connection delivers.
type Delivered = Response<DeliveredBody<LayeredBody>>;

/// [`Web`] with all layers, as a function: a service behind a pointer would cost each request two more allocations.
pub(super) type Stack = dyn Fn(ConnectionInfo, Request<Incoming>) -> BoxFuture<'static, Result<Delivered, Infallible>>
    + Send
    + Sync;

/// The outermost service, one for each connection.
pub(super) struct ConnectionService {
    pub(super) stack: Arc<Stack>,
    pub(super) connection: ConnectionInfo,
}

/// `web` with all layers. All connections share it.
pub(super) fn around(web: Web, cors: Option<CorsLayer>, metrics: &Arc<Metrics>) -> Arc<Stack> {
    let web = Arc::new(web);
    let inner = tower::service_fn(move |request| {
        let web = Arc::clone(&web);
        // Boxed, because each layer moves the future of the next one.
        Box::pin(async move { web.handle(request).await })
    });
    let compressible = SizeAbove::new(MIN_COMPRESSED_BYTES)
        .and(NotForContentType::SSE)
        .and(NotForContentType::IMAGES);
    // The largest response, the script of the viewer, needs no token: at the default level it costs 2.6 times the CPU time.
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(compressible);
    let id = request_id::REQUEST_ID;
    let stack = ServiceBuilder::new()
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
        .layer(option_layer(cors))
        .layer(compression)
        .service(inner);
    Arc::new(move |connection, mut request: Request<Incoming>| {
        let activity = Arc::clone(&connection.activity);
        if request.version() == Version::HTTP_2 {
            activity.mark_http2();
        }
        let handling = activity.begin_request();
        let path = request.uri().path();
        let route = match connection.entrance {
            Entrance::Internal => api::find(path),
            Entrance::Public => api::find_public(path, request.method().as_str()),
        };
        request
            .extensions_mut()
            .insert(RequestContext { connection, route });
        request_id::remove_implausible(request.headers_mut());
        // Every service of the stack is always ready.
        let handled = stack.clone().call(request);
        // Boxed, because a connection has the space of this future also while it is idle.
        Box::pin(async move {
            let _handling = handling;
            let mut response = handled.await?;
            add_default_headers(response.headers_mut());
            let handled = response.extensions_mut().remove::<Handled>();
            // An event stream has no time limit.
            let is_stream = handled.is_some_and(|handled| handled.route.kind == Kind::Stream);
            let delivery = (!is_stream).then(|| activity.begin_delivery());
            Ok(response.map(|body| DeliveredBody::new(body, delivery)))
        })
    })
}

/// The headers of a response that its handler did not set.
fn add_default_headers(headers: &mut HeaderMap) {
    // Counts change all the time, and some need a token, so no cache may keep them.
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(CACHE_CONTROL).or_insert(no_store);
    // A browser must not guess another type than `content-type`.
    let no_sniff = HeaderValue::from_static("nosniff");
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(no_sniff);
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Delivered;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Delivered, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        (self.stack)(self.connection.clone(), request)
    }
}
