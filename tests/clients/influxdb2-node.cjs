'use strict'
const { InfluxDB, Point } = require('@influxdata/influxdb-client')
const { url, token, events, fail, run } = require('./events.cjs')

run(async () => {
  let [points, written] = [0, 0]
  const api = new InfluxDB({ url, token }).getWriteApi('any', 'any', 'ms', {
    batchSize: 20,
    flushInterval: 500,
    gzipThreshold: 0,
    maxRetries: 20,
    minRetryDelay: 200,
    maxRetryDelay: 1000,
    writeFailed: (error, lines, attempt, expires) => { if (expires < Date.now() || attempt > 20) fail(error) },
    writeSuccess: lines => { written += lines.length }
  })
  for await (const { user, segment, at } of events()) {
    api.writePoint(new Point('pair').tag('segment', segment).stringField('user', user).timestamp(at))
    points++
  }
  // `close` drops what waits for another attempt.
  for (let attempt = 0; written < points && attempt < 100; attempt++) {
    await api.flush(true)
    await new Promise(resolve => setTimeout(resolve, 200))
  }
  await api.close()
})
