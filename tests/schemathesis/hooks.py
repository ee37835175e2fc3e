"""Sends NDJSON bodies as the generated string, without further encoding."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def serialize_ndjson(ctx, value):
    return value.encode() if isinstance(value, str) else str(value).encode()
