// The events that every client sends, a few at a time, so that the service restarts in between.
'use strict'

const [url, token, prefix] = process.argv.slice(2)
const EVENTS = 1000
const USERS = 300
const SEGMENTS = 5

const sleep = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))

// The generator of Park and Miller: tests/it/unmodified_clients.rs computes the same numbers.
async function * events () {
  let state = 1
  const next = () => (state = (state * 48271) % 2147483647)
  for (let index = 0; index < EVENTS; index++) {
    const user = next() % USERS
    // The later segments are smaller.
    const segment = Math.min(next() % SEGMENTS, next() % SEGMENTS)
    yield { user: `u${user}`, segment: `${prefix}-${segment}`, at: new Date() }
    if (index % 50 === 49) await sleep(200)
  }
}

// What the documentation of a client without retry advises: send again what failed.
async function withRetry (send) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send()
    } catch (error) {
      if (attempt === 20) throw error
      await sleep(250)
    }
  }
}

const fail = error => {
  console.error(prefix, error)
  process.exitCode = 1
}

// A promise that is never settled would end the program as if everything was sent.
const run = send => {
  let isDone = false
  process.on('exit', () => { if (!isDone) fail('ended before everything was sent') })
  return send().catch(fail).then(() => { isDone = true })
}

module.exports = { url, token, prefix, events, withRetry, fail, run }
