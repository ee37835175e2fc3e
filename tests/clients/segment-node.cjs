'use strict'
const { Analytics } = require('@segment/analytics-node')
const { url, token, events, fail, run } = require('./events.cjs')

run(async () => {
  const analytics = new Analytics({ writeKey: token, host: url, flushAt: 20, flushInterval: 500, maxRetries: 10 })
  analytics.on('error', fail)
  for await (const { user, segment, at } of events()) {
    analytics.track({ userId: user, event: 'Viewed', properties: { segment }, timestamp: at })
  }
  // Without it, what is left after 1.25 times the flush interval is dropped.
  await analytics.closeAndFlush({ timeout: 60000 })
})
