'use strict'
const { PostHog } = require('posthog-node')
const { url, token, events, fail, run } = require('./events.cjs')

run(async () => {
  const client = new PostHog(token, { host: url, flushAt: 20, flushInterval: 500, fetchRetryCount: 10, fetchRetryDelay: 500 })
  client.on('error', fail)
  for await (const { user, segment, at } of events()) {
    client.capture({ distinctId: user, event: 'viewed', properties: { segment }, timestamp: at })
  }
  await client.shutdown(60000)
})
