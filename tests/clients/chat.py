"""Chats by Python's `websockets`: chat.py URL CONTENT EXPECTED

Waits until somebody says "begin", says CONTENT, reads until it has heard EXPECTED further messages (its own
among them), prints each as "username: content", and goes.
"""

import asyncio
import json
import sys

import websockets


async def main(url, content, expected):
    async with websockets.connect(url, open_timeout=20) as ws:
        assert json.loads(await ws.recv())["type"] == "welcome"
        heard = 0
        while heard < expected:
            frame = json.loads(await ws.recv())
            if frame["type"] != "text":
                continue
            if frame["content"] == "begin":
                await ws.send(json.dumps({"type": "text", "content": content}, ensure_ascii=False))
            else:
                heard += 1
                print(f"{frame['username']}: {frame['content']}")


sys.stdout.reconfigure(encoding="utf-8")
asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2], int(sys.argv[3])), 30))
