from posthog import Posthog

from events import TOKEN, URL, events, fail, finish

client = Posthog(TOKEN, host=URL, gzip=True, flush_at=20, flush_interval=0.5, max_retries=10, on_error=fail)
for user, segment in events():
    client.capture("viewed", distinct_id=user, properties={"segment": segment})
client.flush()
client.shutdown()
finish()
