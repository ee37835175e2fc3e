//! Every problem code, with its status and its condition.

/// A problem code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// The condition for this code: a clause for people.
    pub(crate) when: &'static str,
}

const fn code(status: u16, code: &'static str, when: &'static str) -> Code {
    Code { status, code, when }
}

pub(crate) const INVALID_PARAMETER: Code = code(
    400,
    "invalid_parameter",
    "a query parameter is invalid, or is given twice; `parameter` names it",
);
/// The code of any query with an unknown parameter.
const UNKNOWN_PARAMETER: Code = code(
    400,
    "unknown_parameter",
    "the query has a parameter that the operation does not support; `parameter` names it, and `nearest` the most similar one",
);
pub(crate) const INVALID_SEGMENT: Code = code(
    400,
    "invalid_segment",
    "the segment is not a valid segment name",
);
pub(crate) const INVALID_EXPRESSION: Code = code(
    400,
    "invalid_expression",
    "the set expression has a mistake at the character `position`, from 1; `detail` says what would be right",
);
/// The code of requests about sets of users, if no store can count them.
pub(crate) const NO_SETS: Code = code(
    501,
    "unsupported",
    "neither the store nor live counts have the users of all segments in memory",
);
/// The code of requests for users who entered and left, if no store counts them.
pub(crate) const NO_FLOW: Code = code(
    501,
    "unsupported",
    "neither the store nor live counts count the users who enter and leave",
);
pub(crate) const TOO_MANY_STEPS: Code = code(
    400,
    "too_many_points",
    "there are more than 10,000 steps: give a longer step or a shorter range",
);
pub(crate) const INVALID_USER_ID: Code = code(400, "invalid_user_id", "the user id is not valid");
pub(crate) const SAME_USER: Code = code(400, "same_user", "both ids are the same user");
pub(crate) const INVALID_WINDOW: Code = code(
    400,
    "invalid_window",
    "the window is not a duration, not a multiple of the resolution, or longer than the configured one",
);
pub(crate) const TOO_MANY_POINTS: Code = code(
    400,
    "too_many_points",
    "the trend has more than 10,000 points: give a longer step or a shorter range",
);
pub(crate) const TOO_MANY_SEGMENTS: Code = code(
    400,
    "too_many_segments",
    "there are more than `limit` segments, so their pairs are not compared",
);
pub(crate) const NOT_ACCEPTABLE: Code = code(
    406,
    "not_acceptable",
    "the `Accept` header allows neither `application/json` nor `text/csv`",
);
pub(crate) const NOT_FOUND: Code = code(404, "not_found", "there is nothing at this path");
pub(crate) const UNAVAILABLE: Code = code(
    503,
    "unavailable",
    "the store can't respond now, and no earlier result is known",
);

pub(crate) const TOKEN_STREAM_LIMIT: Code = code(
    429,
    "busy",
    "the limit of clients with this token is reached",
);
pub(crate) const STREAM_LIMIT: Code = code(503, "unavailable", "the limit of clients is reached");

/// The codes of every body.
pub(crate) const BODY: &[Code] = &[
    code(408, "timeout", "the body did not arrive in time"),
    code(
        413,
        "too_large",
        "the body has more than `limit` bytes before or after decompression",
    ),
    code(
        415,
        "unsupported_media_type",
        "the content type, the charset or the content encoding is not supported",
    ),
];

/// The code of pairs that can't be stored now.
pub(crate) const NOT_STORED: Code = code(
    503,
    "unavailable",
    "the pairs can't be stored now; nothing of the request was stored",
);
/// The same for messages, which may also merge users.
pub(crate) const NOT_STORED_OR_MERGED: Code = code(
    503,
    "unavailable",
    "the pairs can't be stored now, and nothing of the request was stored; or users can't be merged now as its messages say",
);

/// The codes of storing pairs, whatever their format.
pub(crate) const STORING: &[Code] = &[
    code(
        413,
        "too_many_pairs",
        "the body has more pairs than the token may send in a second, which is `limit`",
    ),
    code(
        429,
        "busy",
        "the service or the store is overloaded; nothing of the request was stored",
    ),
    code(
        500,
        "store_refused",
        "the store refuses the pairs until an operator repairs it",
    ),
];

/// The codes of `POST /v1/pairs`, beside those of storing and of every body.
pub(crate) const PAIRS: &[Code] = &[
    code(
        400,
        "malformed",
        "the body is empty, cut off, not JSON, not an object or an array, or not compressed as `content-encoding` says",
    ),
    code(422, "empty", "the body is well-formed, but has no pairs"),
    code(
        422,
        "nothing_accepted",
        "no pair of the body was accepted; `errors` has the reasons",
    ),
    NOT_STORED,
];

/// The codes of bodies in formats of other programs, beside those of storing and of every body.
pub(crate) const FOREIGN: &[Code] = &[
    code(
        400,
        "malformed",
        "the body is empty, not in the format that the path expects, or not compressed as `content-encoding` says",
    ),
    code(
        400,
        "nothing_accepted",
        "the body has pairs, and none of them was accepted",
    ),
];

/// The codes of a body that is a JSON object, beside those of every body.
pub(crate) const OBJECT: &[Code] = &[
    code(
        400,
        "malformed",
        "the body is cut off, not a JSON object, has an unknown or a missing member, or is not compressed as `content-encoding` \
         says",
    ),
    code(429, "busy", "too many bodies are in flight"),
];

/// The codes of settings that can't be stored.
pub(crate) const SETTINGS: &[Code] = &[
    code(
        400,
        "invalid_settings",
        "the description or the group is not valid",
    ),
    code(
        409,
        "too_many_segments",
        "as many segments as `max_segments` have settings",
    ),
];

/// The code of requests for the users of a segment while that is not allowed.
pub(crate) const EXPORT_OFF: Code = code(
    404,
    "export_off",
    "exports are off; the setting `export = \"on\"` turns them on",
);
pub(crate) const TOO_FEW_USERS: Code = code(
    404,
    "too_few_users",
    "the count of the segment is withheld, because it has fewer users than the setting `min_users`, so its users are not listed",
);
pub(crate) const EXPORTS_FULL: Code = code(429, "busy", "too many exports are under way");
/// The code of requests for the users of a segment, if the store does not have their names.
pub(crate) const NO_NAMES: Code = code(
    501,
    "unsupported",
    "the store keeps fingerprints of users and not their ids",
);

pub(crate) const UNSUPPORTED: Code = code(501, "unsupported", "the configured store can't do this");

pub(crate) const UNKNOWN_SEGMENT: Code = code(
    404,
    "unknown_segment",
    "the named segment has no known pairs",
);

/// The codes of every operation.
pub(crate) const EVERYWHERE: &[Code] = &[
    UNKNOWN_PARAMETER,
    code(
        400,
        "invalid_host",
        "the request has no host, more than one, or an invalid one",
    ),
    code(
        421,
        "misdirected",
        "the service requires no tokens, and the host in the request is not a loopback name",
    ),
    code(
        500,
        "internal",
        "a bug in the service; the log has details under the request id",
    ),
];

/// The codes of every operation that changes something.
pub(crate) const UNSAFE: &[Code] = &[code(
    403,
    CROSS_SITE,
    "the service requires no tokens, and a web page of another site sent the request",
)];
pub(crate) const CROSS_SITE: &str = "cross_site";
/// The code of a method that the resource does not have.
pub(crate) const METHOD_NOT_ALLOWED: &str = "method_not_allowed";

/// The codes of every operation that needs a token.
pub(crate) const WITH_A_TOKEN: &[Code] = &[
    code(
        400,
        "invalid_request",
        "there is more than one `Authorization` header",
    ),
    code(401, "unauthenticated", "there is no bearer token"),
    code(
        401,
        "invalid_token",
        "the token is unknown, expired, not valid yet, or not for this service",
    ),
    code(
        403,
        "insufficient_scope",
        "the token lacks the scope that `scope` names",
    ),
    code(
        403,
        "forbidden_segment",
        "the token is bound to segments, and the request is for another one, or for all",
    ),
    code(
        429,
        "rate_limited",
        "the token sent more in a second than `limit`; nothing of the request was stored",
    ),
];
