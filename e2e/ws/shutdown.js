// SIGTERM and SIGINT: every peer gets 1001, the process ends with 0 within a
// second.
'use strict';
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const WebSocket = require('ws');

async function once(signal) {
  const child = spawn(process.env.WEFT, ['echo', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const url = await new Promise((resolve) => child.stderr.on('data', (d) => {
    const m = /listening on (\S+)/.exec(String(d));
    if (m) resolve(m[1]);
  }));
  const peers = await Promise.all(Array.from({ length: 20 }, () => new Promise((resolve, reject) => {
    const ws = new WebSocket(url);
    ws.on('open', () => resolve(ws));
    ws.on('error', reject);
  })));
  const codes = Promise.all(peers.map((ws) => new Promise((resolve) => ws.on('close', resolve))));
  const exit = new Promise((resolve) => child.on('exit', (code) => resolve(code)));
  const begun = process.hrtime.bigint();
  child.kill(signal);
  assert.strictEqual(await exit, 0);
  const ms = Number(process.hrtime.bigint() - begun) / 1e6;
  assert.ok(ms < 1000, `${signal}: took ${ms} ms`);
  (await codes).forEach((c) => assert.strictEqual(c, 1001));
  return ms;
}

(async () => {
  const term = await once('SIGTERM');
  const int = await once('SIGINT');
  console.log(`ok: 20 peers got 1001, exit 0 after ${term.toFixed(0)} and ${int.toFixed(0)} ms`);
})().catch((err) => { console.error(err); process.exit(1); });
