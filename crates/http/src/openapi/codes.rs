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
    "a query parameter can't be used, or is given twice; `parameter` names it",
);
/// The code of any query with an unknown parameter.
const UNKNOWN_PARAMETER: Code = code(
    400,
    "unknown_parameter",
    "the query has a parameter that the operation does not take: `parameter` names it, `nearest` the one that is most like it",
);
pub(crate) const INVALID_SEGMENT: Code = code(
    400,
    "invalid_segment",
    "the segment is no name of a segment",
);
pub(crate) const INVALID_USER_ID: Code =
    code(400, "invalid_user_id", "the user id is no id of a user");
pub(crate) const INVALID_WINDOW: Code = code(
    400,
    "invalid_window",
    "the window is no duration, no multiple of the resolution, or longer than the configured one",
);
pub(crate) const TOO_MANY_POINTS: Code = code(
    400,
    "too_many_points",
    "the trend has more than 10,000 points: give a longer step or a shorter time",
);
pub(crate) const NOT_FOUND: Code = code(404, "not_found", "there is nothing at this path");
pub(crate) const UNAVAILABLE: Code = code(
    503,
    "unavailable",
    "the store can't answer now, and no earlier answer is known",
);

pub(crate) const TOKEN_STREAM_LIMIT: Code = code(
    429,
    "busy",
    "as many clients with this token as may be listen already",
);
pub(crate) const STREAM_LIMIT: Code = code(
    503,
    "unavailable",
    "as many clients as may be listen already",
);

/// The codes of `POST /v1/pairs`: invalid bodies, and pairs that can't be stored.
pub(crate) const PAIRS: &[Code] = &[
    code(
        400,
        "malformed",
        "the body is empty, cut off, not JSON, not an object or an array, or not compressed as it says",
    ),
    code(408, "timeout", "the body did not arrive in time"),
    code(
        413,
        "too_large",
        "the body has more than `limit` bytes, as it came or decompressed",
    ),
    code(
        413,
        "too_many_pairs",
        "the body has more pairs than the token may send in a second: at most `limit`",
    ),
    code(
        415,
        "unsupported_media_type",
        "the content type, its charset or the content encoding is none that is read here",
    ),
    code(422, "empty", "the body is well-formed and has no pair"),
    code(
        422,
        "nothing_accepted",
        "no pair of the body is acceptable; `errors` says why",
    ),
    code(
        429,
        "busy",
        "too much is under way; nothing of the request was taken",
    ),
    code(
        500,
        "store_refused",
        "the store refuses what it is given, and has to be mended",
    ),
    code(
        503,
        "unavailable",
        "the pairs can be kept nowhere now; nothing of the request was taken",
    ),
];

pub(crate) const UNKNOWN_SEGMENT: Code = code(
    404,
    "unknown_segment",
    "no pair of the segment that was named is known",
);

/// The codes of every operation.
pub(crate) const EVERYWHERE: &[Code] = &[
    UNKNOWN_PARAMETER,
    code(
        400,
        "invalid_host",
        "the request names no host, more than one, or one that is none",
    ),
    code(
        421,
        "misdirected",
        "the service asks for no tokens, and the host in the request is no loopback name",
    ),
    code(
        500,
        "internal",
        "a defect of the service; the log has more under the request id",
    ),
];

/// The codes of every operation that changes something.
pub(crate) const UNSAFE: &[Code] = &[code(
    403,
    CROSS_SITE,
    "the service asks for no tokens, and a web page of another site sent the request",
)];
pub(crate) const CROSS_SITE: &str = "cross_site";

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
        "the token has not the scope that `scope` names",
    ),
    code(
        403,
        "forbidden_segment",
        "the token is bound to segments, and the request is for another one, or for all",
    ),
    code(
        429,
        "rate_limited",
        "the token sent more in a second than `limit`; nothing of the request was taken",
    ),
];
