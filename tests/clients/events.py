"""The events that every client sends, a few at a time, so that the service restarts in between."""

import sys
import time

URL, TOKEN, PREFIX = sys.argv[1:4]
EVENTS = 1000
USERS = 300
SEGMENTS = 5
failures = []


def events():
    """The generator of Park and Miller: tests/it/unmodified_clients.rs computes the same numbers."""
    state = 1

    def following():
        nonlocal state
        state = state * 48271 % 2147483647
        return state

    for index in range(EVENTS):
        user = following() % USERS
        # The later segments are smaller.
        segment = min(following() % SEGMENTS, following() % SEGMENTS)
        yield f"u{user}", f"{PREFIX}-{segment}"
        if index % 50 == 49:
            time.sleep(0.2)


def fail(*what):
    """For the callbacks of clients that report what they gave up."""
    failures.append(what)
    print(PREFIX, *what, file=sys.stderr)


def finish():
    sys.exit(1 if failures else 0)
