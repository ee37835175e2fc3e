'use strict'
const Influx = require('influx')
const { url, token, events, withRetry, run } = require('./events.cjs')

// It tries again at once, and then on no host until its backoff ends.
run(async () => {
  const { hostname: host, port } = new URL(url)
  const client = new Influx.InfluxDB({ host, port: Number(port), username: 'any', password: token, database: 'any' })
  let batch = []
  const flush = async () => {
    const points = batch
    batch = []
    await withRetry(() => client.writePoints(points))
  }
  for await (const { user, segment, at } of events()) {
    batch.push({ measurement: 'pair', tags: { segment }, fields: { user }, timestamp: at })
    if (batch.length === 20) await flush()
  }
  if (batch.length) await flush()
})
