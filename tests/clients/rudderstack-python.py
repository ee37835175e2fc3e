from rudderstack.analytics.client import Client

from events import TOKEN, URL, events, fail, finish

client = Client(write_key=TOKEN, host=URL, gzip=True, upload_size=20, upload_interval=0.5, on_error=fail)
for user, segment in events():
    client.track(user, "Viewed", {"segment": segment})
client.flush()
client.join()
finish()
