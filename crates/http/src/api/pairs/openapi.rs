//! The description of `POST /v1/pairs`: two content types, and a response with an error per refused item.

use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{ArrayBuilder, ContentBuilder, ObjectBuilder, Ref, Required, Type};

use super::PairsResponse;
use crate::openapi::{Described, codes, schema};
use crate::parse::{Fields, ItemError};

pub(super) fn describe() -> Described {
    let mut described = Described::new(
        "postPairs",
        "pairs",
        "Store pairs",
        "An invalid item does not affect the other items: it is listed in `errors`, and the others are stored. Order, \
         repetition and retries change no count, so a request without a response can be retried.",
    );
    let pair = described.refer::<Fields<'static>>();
    let error = described.refer::<ItemError>();
    let refused = ObjectBuilder::new()
        .property(
            "accepted",
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .enum_values(Some([0])),
        )
        .property(
            "rejected",
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0_u64)),
        )
        .property(
            "errors",
            ArrayBuilder::new().items(error).max_items(Some(100)),
        )
        .property(
            "codes",
            ObjectBuilder::new().additional_properties(Some(
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(0_u64)),
            )),
        )
        .required("accepted")
        .required("rejected")
        .required("errors")
        .required("codes");
    described
        .body(pairs_body(pair))
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
        .problem_with(422, refused)
        .fails(codes::PAIRS)
        .fails(codes::BODY)
}

fn pairs_body(pair: Ref) -> RequestBody {
    let one = json!({"user_id": "u104010", "segment": "sports"});
    let several = json!([
        {"user_id": "u104010", "segment": "news", "at": "2026-11-21T08:00:00Z"},
        {"user_id": 7, "segment": "sports", "at": 1_795_262_400.5},
    ]);
    let lines = "{\"user_id\": \"u104010\", \"segment\": \"news\"}\n{\"user_id\": 7, \"segment\": \"sports\"}\n";
    let example = |value| ExampleBuilder::new().value(Some(value));
    let json = ContentBuilder::new()
        .schema(Some(
            OneOfBuilder::new()
                .item(pair.clone())
                .item(ArrayBuilder::new().items(pair).min_items(Some(1))),
        ))
        .examples_from_iter([("one", example(one)), ("several", example(several))]);
    let ndjson = ContentBuilder::new()
        .schema(Some(schema::text().description(Some(
            "One pair per line, as JSON. Blank lines are ignored; a line that is not JSON is an error of that item.",
        ))))
        .examples_from_iter([("lines", example(lines.into()))]);
    RequestBodyBuilder::new()
        .description(Some(
            "UTF-8, plain or with `Content-Encoding: gzip` or `zstd`; at most `max_body` bytes (8 MiB by default), also \
             after decompression.",
        ))
        .required(Some(Required::True))
        .content("application/json", json.build())
        .content("application/x-ndjson", ndjson.build())
        .build()
}
