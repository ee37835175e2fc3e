from influxdb_client_3 import InfluxDBClient3, Point, WriteOptions, write_client_options

from events import TOKEN, URL, events, fail, finish

options = WriteOptions(batch_size=20, flush_interval=500, retry_interval=200, max_retries=20, max_retry_delay=1_000)
with InfluxDBClient3(
    host=URL,
    token=TOKEN,
    database="any",
    enable_gzip=True,
    write_client_options=write_client_options(write_options=options, error_callback=fail),
) as client:
    for user, segment in events():
        client.write(Point("pair").tag("segment", segment).field("user", user))
finish()
