'use strict'
const { CloudEvent, HTTP } = require('cloudevents')
const { url, token, events, withRetry, run } = require('./events.cjs')

// It has neither batches nor retries of its own. Its transport does not report the status, so that the message is sent by fetch.
run(async () => {
  let index = 0
  for await (const { user, segment, at } of events()) {
    const event = new CloudEvent({ type: 'seen', source: '/test', subject: user, time: at.toISOString(), data: { segment } })
    const { headers, body } = index++ % 2 ? HTTP.binary(event) : HTTP.structured(event)
    await withRetry(async () => {
      const response = await fetch(`${url}/v1/pairs`, {
        method: 'POST', headers: { ...headers, authorization: `Bearer ${token}` }, body
      })
      if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
    })
  }
})
