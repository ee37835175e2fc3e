"""Counts in DuckDB, in memory. Arguments: sizes, latest slot, spread. Prints a line per size: the seconds of two queries."""

import sys
import time

import duckdb

*sizes, latest, spread = map(int, sys.argv[1:])
db = duckdb.connect()
db.execute("create table pairs (segment_id integer, user_id varchar, seen_slot bigint)")
for size in sizes:
    db.execute(
        f"insert into pairs select {size}, 'u' || n, {latest} - n % {spread} from range({size}) t(n)"
    )
for size in sizes:
    best = []
    for what in ("distinct user_id", "*"):
        sql = f"select count({what}) from pairs where segment_id = {size} and seen_slot > {latest - spread}"
        times = []
        # The largest segment is counted a few times, small segments many times.
        while len(times) < 3 or (sum(times) < 0.5 and len(times) < 300):
            began = time.perf_counter()
            counted = db.execute(sql).fetchone()[0]
            times.append(time.perf_counter() - began)
            assert counted == size, (counted, size)
        best.append(min(times))
    print(*best)
