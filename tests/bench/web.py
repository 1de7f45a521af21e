"""The web server of all names. The CA's visits take as long as the name says; a client that looks
at its own files is answered at once.

A validation time is a part of the name, `n7-2345ms.…`, so that it needs no other way to get here.
"""

import asyncio
import re


def serve(port, root):
    """Serves the files below `root`, for ever."""

    async def visit(reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            if "Pebble" in head:
                wait = re.search(r"\r\nhost: [^.]*-(\d+)ms\.", head, re.I)
                await asyncio.sleep(int(wait[1]) / 1000 if wait else 0)
            # Read as late as this: who takes a file away too early fails here, as in real life.
            writer.write(reply(root, head.split(" ")[1]))
        except (EOFError, OSError):
            pass
        writer.close()

    async def listen():
        server = await asyncio.start_server(visit, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    asyncio.run(listen())


def reply(root, path):
    """A whole HTTP reply: the file or 404."""
    status, body = "200 OK", b""
    try:
        body = (root / path.lstrip("/")).read_bytes()
    except OSError:
        status = "404 Not Found"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
