"""Python's websockets in both roles: as the client of weft echo, and as the
server of weft dial."""
import asyncio
import os
import sys

import websockets


async def client(url, compression):
    async with websockets.connect(url, compression=compression, max_size=None) as ws:
        for size in (0, 1, 125, 126, 65535, 65536, 230424, 4 << 20):
            data = os.urandom(size)
            await ws.send(data)
            assert await ws.recv() == data, size
        text = "κόσμε 日本語 🎈 " * 10000
        await ws.send(text)
        assert await ws.recv() == text
        # A fragmented message: an iterable is sent as one.
        await ws.send(["frag", "men", "ted"])
        assert await ws.recv() == "fragmented"
        await (await ws.ping())
    assert ws.close_code == 1000, ws.close_code


async def server(extra):
    async def echo(ws, path=None):
        async for message in ws:
            await ws.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as s:
        port = s.sockets[0].getsockname()[1]
        proc = await asyncio.create_subprocess_exec(
            os.environ["WEFT"], "dial", *extra, f"ws://127.0.0.1:{port}/",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        lines = "".join(f"line {i}\n" for i in range(1000)).encode()
        out, _ = await proc.communicate(lines)
        assert proc.returncode == 0, proc.returncode
        assert out == lines


async def main():
    plain, deflated = sys.argv[1:]
    await client(plain, None)
    await client(deflated, "deflate")
    await server([])
    await server(["--deflate"])
    print("ok: python websockets", websockets.__version__)


asyncio.run(asyncio.wait_for(main(), 120))
