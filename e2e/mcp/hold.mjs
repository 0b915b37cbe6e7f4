// Connects, calls a tool that takes long, and ends well when the connection is
// lost. node hold.mjs URL
import { WebSocket } from 'ws';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';

globalThis.WebSocket = WebSocket;
const client = new Client({ name: 'hold', version: '1' }, {});
client.onclose = () => process.exit(0);
await client.connect(new WebSocketClientTransport(new URL(process.argv[2])));
await client.callTool({ name: 'trigger-long-running-operation', arguments: { duration: 600, steps: 2 } }, undefined, { timeout: 600_000 });
process.exit(1); // the connection should have been lost long before
