"""All overlaps in a peer, on one thread.

Arguments: the peer, a directory with the files of `pairs.rs`, and the first slots of windows. Prints one JSON object for each way to
ask and window: the way, how it identifies users, the first slot, the seconds of the fastest run, and `[a, b, both]` of all pairs.
"""

import array
import json
import sys
import time

RUNS = 3
MISSING = 3

# Each user's segments as an array, and all pairs of them.
ARRAYS = """
    select x, y, count() from (select groupArray(segment) s from by_{user} where slot >= {start} group by {user})
    array join s as x array join s as y where x < y group by x, y
    settings max_threads = 1, optimize_aggregation_in_order = 1"""
# Each segment's users as a bitmap, and all pairs of them. ClickHouse's bitmaps of 64-bit hashes take minutes.
BITMAPS = """
    with bitmaps as (select segment, groupBitmapState({user}) users from pairs where slot >= {start} group by segment)
    select a.segment, b.segment, bitmapAndCardinality(a.users, b.users) both
    from bitmaps a cross join bitmaps b where a.segment < b.segment and both > 0
    settings max_threads = 1"""
LISTS = """
    select x, y, count(*) from (
        select x, unnest(s) y from (
            select s, unnest(s) x from (select list(segment) s from by_{user} where slot >= {start} group by {user})))
    where x < y group by all"""
JOIN = """
    select a.segment, b.segment, count(*) from by_{user} a join by_{user} b on a.{user} = b.{user} and a.segment < b.segment
    where a.slot >= {start} and b.slot >= {start} group by all"""


def report(way, identity, start, ask):
    """The time of one thread is at most that of all threads on the CPU, and at most that on the clock."""
    seconds = []
    for _ in range(RUNS):
        began, began_cpu = time.perf_counter(), time.process_time()
        pairs = ask()
        seconds.append(min(time.perf_counter() - began, time.process_time() - began_cpu))
    answer = {"way": way, "identity": identity, "start": start, "seconds": min(seconds), "pairs": pairs}
    print(json.dumps(answer), flush=True)


def clickhouse(directory, starts):
    from chdb import session

    db = session.Session()
    version = str(db.query("select version()", "TSV")).strip()
    db.query("create database d")
    db.query("use d")
    columns = "segment UInt16, number UInt32, hash UInt64, slot UInt32"
    db.query(f"create table pairs ({columns}) engine = Memory")
    db.query(f"insert into pairs select * from file('{directory}/pairs.csv', 'CSV', '{columns}')")
    for user in ("hash", "number"):
        db.query(f"create table by_{user} ({columns}) engine = MergeTree order by ({user}, segment)")
        db.query(f"insert into by_{user} select * from pairs")
        db.query(f"optimize table by_{user} final")

    def ask(sql):
        lines = str(db.query(sql, "TSV")).splitlines()
        return [[int(field) for field in line.split("\t")] for line in lines]

    for way, user, sql in (("arrays", "hash", ARRAYS), ("arrays", "number", ARRAYS), ("bitmaps", "number", BITMAPS)):
        for start in starts:
            query = sql.format(user=user, start=start)
            report(f"ClickHouse {version}, {way}, users by {user}", user, start, lambda: ask(query))


def duckdb(directory, starts):
    import duckdb

    db = duckdb.connect()
    db.execute("set threads = 1")
    columns = "{'segment': 'USMALLINT', 'number': 'UINTEGER', 'hash': 'UBIGINT', 'slot': 'UINTEGER'}"
    db.execute(f"create table pairs as select * from read_csv('{directory}/pairs.csv', header = false, columns = {columns})")
    for user in ("hash", "number"):
        db.execute(f"create table by_{user} as select segment, {user}, slot from pairs order by {user}, segment")
    for way, user, sql in (
        ("lists", "hash", LISTS),
        ("a join", "hash", JOIN),
        ("lists", "number", LISTS),
        ("a join", "number", JOIN),
    ):
        for start in starts:
            query = sql.format(user=user, start=start)
            name = f"DuckDB {duckdb.__version__}, {way}, users by {user}"
            report(name, user, start, lambda: db.execute(query).fetchall())


def pyroaring(directory, _):
    from pyroaring import BitMap
    from pyroaring import __version__ as version

    def read(name):
        numbers = array.array("I")
        with open(f"{directory}/{name}", "rb") as file:
            numbers.frombytes(file.read())
        return numbers

    users, groups, position = read("users"), [], 0
    for size in read("sizes"):
        groups.append(users[position : position + size])
        position += size

    def build():
        return [BitMap(group) for group in groups]

    def count(bitmaps):
        pairs = []
        for b, users in enumerate(bitmaps):
            for a in range(b):
                both = bitmaps[a].intersection_cardinality(users)
                if both > 0:
                    pairs.append([a, b, both])
        return pairs

    bitmaps = build()
    name = f"pyroaring {version}, no window, users by number"
    report(f"{name}, bitmaps built before", "number", None, lambda: count(bitmaps))
    report(f"{name}, with building them", "number", None, lambda: count(build()))


def main():
    peer, directory, *starts = sys.argv[1:]
    ask = {"clickhouse": clickhouse, "duckdb": duckdb, "pyroaring": pyroaring}[peer]
    try:
        ask(directory, [int(start) for start in starts])
    except ImportError:
        sys.exit(MISSING)


main()
