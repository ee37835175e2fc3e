'use strict'
const { InfluxDBClient, Point } = require('@influxdata/influxdb3-client')
const { url, token, events, withRetry, run } = require('./events.cjs')

// It has neither batches nor retries of its own.
run(async () => {
  const client = new InfluxDBClient({ host: url, token, database: 'any' })
  let batch = []
  const flush = async () => {
    const points = batch
    batch = []
    await withRetry(() => client.write(points))
  }
  for await (const { user, segment, at } of events()) {
    batch.push(Point.measurement('pair').setTag('segment', segment).setStringField('user', user).setTimestamp(at))
    if (batch.length === 20) await flush()
  }
  if (batch.length) await flush()
  await client.close()
})
