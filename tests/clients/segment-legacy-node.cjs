'use strict'
const Analytics = require('analytics-node')
const { url, token, events, fail, run } = require('./events.cjs')

run(async () => {
  const analytics = new Analytics(token, { host: url, flushAt: 20, flushInterval: 500, retryCount: 10, errorHandler: fail })
  const sent = []
  for await (const { user, segment, at } of events()) {
    sent.push(new Promise(resolve => {
      const message = { userId: user, event: 'Viewed', properties: { segment }, timestamp: at }
      analytics.track(message, error => resolve(error && fail(error)))
    }))
  }
  await analytics.flush()
  await Promise.all(sent)
})
