// Node's ws as the client of a weft echo server: sizes around every header
// form, text and binary, fragments with pings between them, many messages at
// once, and the closing handshake.
'use strict';
const assert = require('node:assert');
const crypto = require('node:crypto');
const WebSocket = require('ws');

const [url, mode] = process.argv.slice(2);
const open = () => new Promise((resolve, reject) => {
  const ws = new WebSocket(url, { perMessageDeflate: mode === 'deflate', maxPayload: 0 });
  ws.on('open', () => resolve(ws));
  ws.on('error', reject);
});
const { once: next } = require('node:events'); // rejects on 'error'


(async () => {
  const ws = await open();
  if (mode === 'deflate') assert.match(ws.extensions, /permessage-deflate/);
  const sizes = [0, 1, 125, 126, 127, 65535, 65536, 230424, 1 << 20, 16 << 20, 64 << 20];
  for (const size of sizes) {
    const data = crypto.randomBytes(size);
    ws.send(data);
    const [got, binary] = await next(ws, 'message');
    assert.ok(binary);
    assert.ok(got.equals(data), `binary of ${size} bytes came back different`);
  }
  const text = 'κόσμε — 日本語 — 🎈 '.repeat(20000);
  ws.send(text);
  const [back, isBinary] = await next(ws, 'message');
  assert.ok(!isBinary);
  assert.strictEqual(back.toString(), text);

  // Fragments with a ping between them: the pong must not wait for the message.
  ws.send('one ', { fin: false });
  ws.ping('between');
  const [pong] = await next(ws, 'pong');
  assert.strictEqual(pong.toString(), 'between');
  ws.send('two ', { fin: false });
  ws.send('three', { fin: true });
  assert.strictEqual((await next(ws, 'message'))[0].toString(), 'one two three');

  // Many at once come back in order.
  const order = [];
  const all = new Promise((resolve) => ws.on('message', (m) => {
    order.push(Number(m.toString()));
    if (order.length === 5000) resolve();
  }));
  for (let i = 0; i < 5000; i++) ws.send(String(i));
  await all;
  order.forEach((n, i) => assert.strictEqual(n, i));

  ws.close(3001, 'done');
  const [code] = await next(ws, 'close');
  assert.strictEqual(code, 3001);
  console.log(`ok: ${sizes.length + 1} sizes, fragments, 5000 in order, close 3001`);
})().catch((err) => { console.error(err); process.exit(1); });
