//! The page's stylesheet, scripts and icon, embedded in the binary. Their addresses change with their contents, so browsers
//! may cache them forever.

use std::sync::LazyLock;

use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use warp::http::{Response, header};
use warp::reply::Reply;

use crate::problem::Problem;

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

const ALL: [Asset; 11] = [
    Asset {
        name: "page.css",
        kind: "text/css; charset=utf-8",
        body: include_str!("../../assets/page.css"),
    },
    Asset {
        name: "theme.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/theme.js"),
    },
    Asset {
        name: "common.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/common.js"),
    },
    Asset {
        name: "page.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/page.js"),
    },
    Asset {
        name: "times.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/times.js"),
    },
    Asset {
        name: "charts.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/charts.js"),
    },
    Asset {
        name: "tools.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/tools.js"),
    },
    Asset {
        name: "combine.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/combine.js"),
    },
    Asset {
        name: "overlap.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/overlap.js"),
    },
    Asset {
        name: "flow.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("../../assets/flow.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        body: include_str!("../../assets/icon.svg"),
    },
];

/// The version in the addresses of assets: a checksum of their contents.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let sum = ALL.iter().fold(0, |sum, asset| {
        crc32c::crc32c_append(sum, asset.body.as_bytes())
    });
    format!("{sum:08x}")
});

/// Serves the asset `name`.
pub(super) fn get(name: &str) -> warp::reply::Response {
    let Some(asset) = ALL.iter().find(|asset| asset.name == name) else {
        return Problem::not_found().into_response();
    };
    let mut response = Response::new(asset.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, kept);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
