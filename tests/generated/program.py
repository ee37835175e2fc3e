"""Uses the client that openapi-python-client generated: `program.py URL TOKEN`."""

import sys
from io import BytesIO

from headcount_client import AuthenticatedClient
from headcount_client.api.counts import get_count, get_segments, get_trend, post_trends
from headcount_client.api.pairs import post_pairs, post_pairs_ndjson
from headcount_client.models import (
    Accepted,
    Count,
    ErrorCode,
    ItemErrorCode,
    Pair,
    Problem,
    SegmentList,
    Trend,
    TrendList,
    TrendsRequest,
)
from headcount_client.types import File

LINES = b'{"user_id": "u3", "segment": "sports"}\n{"user_id": "u1", "segment": "news"}\n'


def main(url: str, token: str) -> None:
    client = AuthenticatedClient(base_url=url, token=token)

    pairs = [Pair(user_id="u1", segment="sports"), Pair(user_id=2, segment="sports"), Pair(user_id="u1", segment=" ")]
    stored = post_pairs.sync(client=client, body=pairs)
    assert isinstance(stored, Accepted), stored
    assert stored.errors[0].code is ItemErrorCode.INVALID_SEGMENT, stored
    print("stored", stored.accepted)

    stored = post_pairs_ndjson.sync(client=client, body=File(payload=BytesIO(LINES)))
    assert isinstance(stored, Accepted), stored
    print("stored", stored.accepted)

    count = get_count.sync("sports", client=client)
    assert isinstance(count, Count), count
    print(count.segment, count.users)

    segments = get_segments.sync(client=client)
    assert isinstance(segments, SegmentList), segments
    print([segment.segment for segment in segments.segments])

    trend = get_trend.sync("sports", client=client)
    assert isinstance(trend, Trend), trend
    trends = post_trends.sync(client=client, body=TrendsRequest(segments=["sports", "news"]))
    assert isinstance(trends, TrendList), trends
    print(trend.segment, [trend.segment for trend in trends.trends])

    refused = get_count.sync("sports", client=client, window="1s")
    assert isinstance(refused, Problem), refused
    assert refused.code is ErrorCode.INVALID_WINDOW, refused
    print(refused.status, refused.code.value)

    nothing = post_pairs.sync(client=client, body=Pair(user_id="u1", segment=" "))
    assert isinstance(nothing, Problem), nothing
    print(nothing.status, nothing.code.value, nothing.rejected)


main(sys.argv[1], sys.argv[2])
