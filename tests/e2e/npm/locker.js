// A program that locks with one of npm's lock packages.
//
//     node locker.js PACKAGE loop PATH COUNT N    N times: lock, add one to the number in COUNT, unlock
//     node locker.js PACKAGE hold PATH            lock, print "locked", keep it until a line comes on stdin
//     node locker.js PACKAGE attempt PATH         lock without waiting: exit status 0, or 77 if it is held
//
// PACKAGE: lockfile, lockfile-stale (recovering what is older than 300 ms), proper-lockfile.  Exit
// status 78: the package found out that it lost the lock.
'use strict'
const fs = require('fs')
const [name, action, path, count, n] = process.argv.slice(2)

const POLL_MS = 10
const PATIENCE_MS = 60000

// npm's lockfile: open(O_EXCL), unlink; with `stale` also stat and link.
function lockfile (stale) {
  const lib = require('lockfile')
  const again = { retries: PATIENCE_MS / POLL_MS, retryWait: POLL_MS }
  const call = (f, ...args) => new Promise((resolve, reject) => f(path, ...args, e => e ? reject(e) : resolve()))
  return {
    lock: wait => call(lib.lock, { ...(wait ? again : {}), ...(stale ? { stale } : {}) }),
    unlock: () => call(lib.unlock),
    held: e => e.code === 'EEXIST'
  }
}

// proper-lockfile: mkdir PATH.lock, utimes and stat again and again, rmdir.
function properLockfile () {
  const lib = require('proper-lockfile')
  const retries = { retries: PATIENCE_MS / POLL_MS, factor: 1, minTimeout: POLL_MS, maxTimeout: POLL_MS }
  const lost = e => {
    console.error(`${e.code}: ${e.message}`)
    process.exit(78)
  }
  let release
  return {
    lock: async wait => {
      release = await lib.lock(path, { realpath: false, stale: 2000, update: 1000, onCompromised: lost, ...(wait ? { retries } : {}) })
    },
    unlock: () => release(),
    held: e => e.code === 'ELOCKED'
  }
}

const lockers = { lockfile: () => lockfile(0), 'lockfile-stale': () => lockfile(300), 'proper-lockfile': properLockfile }

async function main () {
  const locker = lockers[name]()
  if (action === 'loop') {
    for (let i = 0; i < Number(n); i++) {
      await locker.lock(true)
      fs.writeFileSync(count, `${Number(fs.readFileSync(count, 'utf8')) + 1}\n`)
      await locker.unlock()
    }
  } else if (action === 'hold') {
    await locker.lock(true)
    console.log('locked')
    await new Promise(resolve => process.stdin.once('data', resolve))
    process.stdin.destroy()
    await locker.unlock()
  } else {
    try {
      await locker.lock(false)
    } catch (e) {
      if (!locker.held(e)) throw e
      process.exit(77)
    }
    await locker.unlock()
  }
}

main()
