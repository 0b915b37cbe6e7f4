// Node's ws as the server of weft dial and of weft echo --dial.
'use strict';
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const crypto = require('node:crypto');
const { WebSocketServer } = require('ws');

const listen = (options) => new Promise((resolve) => {
  const wss = new WebSocketServer({ host: '127.0.0.1', port: 0, maxPayload: 0, ...options });
  wss.on('listening', () => resolve(wss));
});
const run = (args, input) => new Promise((resolve, reject) => {
  const child = spawn(process.env.WEFT, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const out = [];
  child.stdout.on('data', (d) => out.push(d));
  child.on('error', reject);
  child.on('close', (code) => resolve({ code, out: Buffer.concat(out) }));
  child.stdin.end(input);
});

(async () => {
  for (const perMessageDeflate of [false, true]) {
    const wss = await listen({ perMessageDeflate });
    const url = `ws://127.0.0.1:${wss.address().port}/`;
    const deflate = perMessageDeflate ? ['--deflate'] : [];

    // weft dial: lines out, messages in.
    wss.once('connection', (ws) => ws.on('message', (m, binary) => ws.send(m, { binary })));
    const lines = Array.from({ length: 2000 }, (_, i) => `line ${i} ä`).join('\n') + '\n';
    const dial = await run(['dial', ...deflate, url], lines);
    assert.strictEqual(dial.code, 0);
    assert.strictEqual(dial.out.toString(), lines);

    // One binary message of unknown length, in fragments.
    wss.once('connection', (ws) => ws.on('message', (m, binary) => ws.send(m, { binary })));
    const data = crypto.randomBytes(3 << 20);
    const binary = await run(['dial', ...deflate, '--binary', '--raw', url], data);
    assert.strictEqual(binary.code, 0);
    assert.ok(binary.out.equals(data));

    // weft echo --dial: what the server sends comes back; its Close is answered.
    const payloads = [0, 125, 126, 65536, 1 << 20].map((n) => crypto.randomBytes(n));
    const result = new Promise((resolve, reject) => wss.once('connection', (ws) => {
      let i = 0;
      ws.on('message', (m) => {
        try { assert.ok(m.equals(payloads[i])); } catch (err) { reject(err); }
        if (++i === payloads.length) ws.close(1000, 'enough');
        else ws.send(payloads[i]);
      });
      ws.on('close', (code) => resolve(code));
      ws.send(payloads[0]);
    }));
    const echo = run(['echo', '--dial', url, ...deflate], '');
    assert.strictEqual(await result, 1000);
    assert.strictEqual((await echo).code, 0);
    wss.close();
  }
  console.log('ok: weft dial and weft echo --dial, plain and deflate');
})().catch((err) => { console.error(err); process.exit(1); });
