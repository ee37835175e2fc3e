from influxdb_client import InfluxDBClient, Point, WriteOptions

from events import TOKEN, URL, events, fail, finish

options = WriteOptions(batch_size=20, flush_interval=500, retry_interval=200, max_retries=20, max_retry_delay=1_000)
with InfluxDBClient(URL, TOKEN, org="any", enable_gzip=True) as client:
    with client.write_api(write_options=options, error_callback=fail) as api:
        for user, segment in events():
            api.write("any", record=Point("pair").tag("segment", segment).field("user", user))
finish()
