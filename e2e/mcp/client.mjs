// The official TypeScript SDK's WebSocket client against a gateway that puts
// server-everything on WebSocket: tools, progress, sampling, a large answer,
// many clients at once. Every text carries the number of its client, so that a
// message that reached another client is noticed.
//
//   node client.mjs URL CLIENTS
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import { CreateMessageRequestSchema } from '@modelcontextprotocol/sdk/types.js';

// Node 20 has no WebSocket of its own. The SDK handles notifications in a
// microtask and answers at once: messages that arrive together must be events
// of their own, or the last progress is lost in the client.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { allowSynchronousEvents: false });
  }
};

const [url, count] = [process.argv[2], Number(process.argv[3])];
const timeout = { timeout: 300_000 };
const text = (result) => result.content.map((c) => c.text ?? '').join('\n');

async function connect(n) {
  const client = new Client({ name: `client-${n}`, version: '1' }, { capabilities: { sampling: {} } });
  const asked = [];
  client.setRequestHandler(CreateMessageRequestSchema, async (request) => {
    const prompt = JSON.stringify(request.params.messages);
    asked.push(prompt);
    return { model: 'none', role: 'assistant', content: { type: 'text', text: `answer of client ${n}` } };
  });
  client.onerror = (err) => { throw new Error(`client ${n}: ${err}`); };
  await client.connect(new WebSocketClientTransport(new URL(url)), timeout);
  return { client, asked };
}

async function exercise(n) {
  const { client, asked } = await connect(n);
  const tools = (await client.listTools(undefined, timeout)).tools.map((t) => t.name);
  for (const want of ['echo', 'trigger-sampling-request', 'trigger-long-running-operation']) {
    assert.ok(tools.includes(want), `client ${n} sees no ${want} in ${tools}`);
  }
  const echo = async (message) => {
    const result = await client.callTool({ name: 'echo', arguments: { message } }, undefined, timeout);
    assert.ok(text(result).includes(message), `client ${n} got ${text(result).slice(0, 200)}`);
  };
  await Promise.all([1, 2, 3].map((k) => echo(`client ${n} call ${k}`)));

  const progress = [];
  await client.callTool({ name: 'trigger-long-running-operation', arguments: { duration: 0.2, steps: 2 } }, undefined, {
    ...timeout, onprogress: (p) => progress.push(p.progress),
  });
  assert.deepEqual(progress, [1, 2], `progress of client ${n}`);

  const prompt = `prompt of client ${n}`;
  const sampled = await client.callTool({ name: 'trigger-sampling-request', arguments: { prompt, maxTokens: 10 } }, undefined, timeout);
  assert.ok(text(sampled).includes(`answer of client ${n}`), `client ${n} got ${text(sampled)}`);
  assert.equal(asked.length, 1, `client ${n} was asked ${asked.length} times`);
  assert.ok(asked[0].includes(prompt), `client ${n} was asked ${asked[0]}`);

  if (n === 0) await echo('x'.repeat(5 << 20));
  await client.close();
}

await Promise.all(Array.from({ length: count }, (_, n) => exercise(n)));
console.log(`${count} clients: all as wanted`);
