//! The descriptions of `POST /v1/pairs` and `/v1/pairs/ndjson`: the same response, with an error per refused item.

use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{OneOfBuilder, SchemaFormat};
use utoipa::openapi::{ArrayBuilder, Content, ContentBuilder, KnownFormat, Ref};

use super::PairsResponse;
use crate::openapi::{Described, codes, schema};
use crate::parse::{Fields, ItemError};

const ABOUT: &str = "\
An invalid item does not affect the other items: it is listed in `errors`, and the others are stored. Order, repetition and retries \
change no count, so a request without a response can be retried.";

pub(super) fn describe() -> Described {
    let about = format!(
        "{ABOUT}\n\nThe body may also be NDJSON with `application/x-ndjson`, or CloudEvents. `postPairsNdjson` is the operation of NDJSON."
    );
    let mut described = Described::new("postPairs", "pairs", "Store pairs", &about);
    let pair = described.refer::<Fields<'static>>();
    answered(described.body("application/json", BODY, objects(pair)))
}

pub(super) fn describe_ndjson() -> Described {
    let about = format!(
        "{ABOUT}\n\nThe body is NDJSON: one pair per line, as JSON. Blank lines are ignored; a line that is not JSON is an error of that \
         item. Any content type is accepted, for example `application/x-ndjson`."
    );
    let described = Described::new("postPairsNdjson", "pairs", "Store lines of pairs", &about);
    // The one content type of bytes that client generators know.
    answered(described.body("application/octet-stream", BODY, lines()))
}

fn answered(mut described: Described) -> Described {
    described.refer::<ItemError>();
    described
        .answers::<PairsResponse<'static>>(
            200,
            "Every accepted pair is durable, and is included in every later count.",
            json!({"accepted": 2, "rejected": 1, "errors": [{
                "index": 1,
                "code": "invalid_segment",
                "message": "segment begins or ends with white space"
            }], "codes": {"invalid_segment": 1}}),
        )
        .answers::<PairsResponse<'static>>(
            202,
            "Every accepted pair is durable, and is counted a little later. With `durable` `spooled`, the store is unavailable: the pairs are \
             on this instance's own disk, and will be delivered. With `stored`, the store has the pairs, and live counts include them once \
             Redis is available.",
            json!({"accepted": 2, "rejected": 0, "durable": "spooled", "errors": []}),
        )
        .fails(codes::PAIRS)
        .fails(codes::STORING)
        .fails(codes::BODY)
}

/// One pair, or an array of them.
fn objects(pair: Ref) -> Content {
    let one = json!({"user_id": "u104010", "segment": "sports"});
    let several = json!([
        {"user_id": "u104010", "segment": "news", "at": "2026-11-21T08:00:00Z"},
        {"user_id": 7, "segment": "sports", "at": 1_795_262_400.5},
    ]);
    let example = |value| ExampleBuilder::new().value(Some(value));
    ContentBuilder::new()
        .schema(Some(
            OneOfBuilder::new()
                .item(pair.clone())
                .item(ArrayBuilder::new().items(pair).min_items(Some(1))),
        ))
        .examples_from_iter([("one", example(one)), ("several", example(several))])
        .build()
}

fn lines() -> Content {
    let lines = "{\"user_id\": \"u104010\", \"segment\": \"news\"}\n{\"user_id\": 7, \"segment\": \"sports\"}\n";
    let bytes = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ContentBuilder::new()
        .schema(Some(schema::text().format(Some(bytes))))
        .example(Some(lines.into()))
        .build()
}

const BODY: &str = "\
UTF-8, plain or with `Content-Encoding: gzip` or `zstd`; at most `max_body` bytes (8 MiB by default), also after decompression.";
