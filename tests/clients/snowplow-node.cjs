'use strict'
const { newTracker, buildStructEvent } = require('@snowplow/node-tracker')
const { url, token, events, run } = require('./events.cjs')

run(async () => {
  const sent = { events: 0, tracked: 0 }
  const tracker = newTracker({ namespace: 'test', appId: token }, {
    endpoint: url,
    bufferSize: 20,
    eventMethod: 'post',
    onRequestSuccess: batch => { sent.events += batch.length }
  })
  for await (const { user, segment } of events()) {
    tracker.setUserId(user)
    tracker.track(buildStructEvent({ category: 'segment', action: segment }))
    sent.tracked++
  }
  // It sends again what failed when the next event comes, or when it is told to.
  for (let attempt = 0; sent.events < sent.tracked && attempt < 100; attempt++) {
    tracker.flush()
    await new Promise(resolve => setTimeout(resolve, 200))
  }
  if (sent.events < sent.tracked) throw new Error(`${sent.events} of ${sent.tracked} events were sent`)
})
