// A real browser: headless Chromium opens a page whose script talks to weft
// echo and reports what it saw.
'use strict';
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');

const [plain, deflated] = process.argv.slice(2);
const page = `<!doctype html><meta charset="utf-8"><title>weft</title><script>
const next = (ws) => new Promise((ok, no) => {
  ws.onmessage = (e) => ok(e.data);
  ws.onclose = (e) => no(new Error('closed ' + e.code + ' ' + e.reason));
});
async function talk(url) {
  const ws = new WebSocket(url);
  ws.binaryType = 'arraybuffer';
  await new Promise((ok, no) => { ws.onopen = ok; ws.onclose = (e) => no(new Error('closed ' + e.code)); });
  for (const n of [0, 1, 125, 126, 65535, 65536, 230424, 1 << 20, 8 << 20]) {
    const data = new Uint8Array(n).map((_, i) => i * 31 % 251);
    ws.send(data);
    const got = new Uint8Array(await next(ws));
    if (got.length !== n || got.some((b, i) => b !== data[i])) throw new Error('binary of ' + n + ' differs');
  }
  const text = 'κόσμε 日本語 🎈 '.repeat(20000);
  ws.send(text);
  if (await next(ws) !== text) throw new Error('text differs');
  const closed = new Promise((ok) => { ws.onclose = ok; });
  ws.close(3002, 'page is done');
  const e = await closed;
  if (!e.wasClean || e.code !== 3002) throw new Error('close ' + e.code + ' clean ' + e.wasClean);
  return ws.extensions;
}
(async () => {
  try {
    return { plain: await talk(${JSON.stringify(plain)}), deflated: await talk(${JSON.stringify(deflated)}) };
  } catch (err) { return { error: String(err) }; }
})().then((r) => fetch('/result', { method: 'POST', body: JSON.stringify(r) }));
</script>`;

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'weft-chromium-'));
let browser;
const result = new Promise((resolve, reject) => {
  const server = http.createServer((req, res) => {
    if (req.method === 'POST') {
      let body = '';
      req.on('data', (d) => { body += d; });
      req.on('end', () => { res.end(); server.close(); resolve(JSON.parse(body)); });
      return;
    }
    res.setHeader('Content-Type', 'text/html');
    res.end(page);
  });
  server.listen(0, '127.0.0.1', () => {
    browser = spawn('chromium', ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      `--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/`], { stdio: 'ignore' });
    browser.on('error', reject);
  });
  setTimeout(() => reject(new Error('the page did not report within 90 s')), 90000).unref();
});
result.then((r) => {
  assert.strictEqual(r.error, undefined);
  assert.strictEqual(r.plain, '');
  assert.match(r.deflated, /permessage-deflate/);
  console.log('ok: chromium, plain and deflate');
}).catch((err) => { console.error(err); process.exitCode = 1; }).finally(() => {
  browser.on('exit', () => { fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 }); process.exit(); });
  browser.kill();
});
