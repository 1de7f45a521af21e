"""The network between a client and the CA: it takes its time, and counts what passes.

    client --TCP--> delay --TCP--> count --TLS--> Pebble

The delay knows bytes only, so that whatever a client does below or above TLS (handshakes of two
round trips or three, connections kept or not, requests side by side) costs what it would cost
on a real line. The counter ends the client's TLS and speaks with Pebble in the protocol that the
client chose.
"""

import asyncio
import contextlib
import re
import selectors
import ssl
import threading
from collections import deque

# What Let's Encrypt offers, and how many connections to Pebble of each kind are kept ready, so that
# a client does not wait for ours.
PROTOCOLS = {"h2": 2, "http/1.1": 12}
# A new connection in reserve is opened when the one that it replaces has sent its first request.
REFILL = 0.005

HTTP2_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
HTTP2_HEADERS = 1


class Proxy:
    """Runs in a thread; `requests` and `connections` are for its owner to read and to reset."""

    def __init__(self, round_trip, ports, files):
        self.round_trip = round_trip
        self.port, self.counter_port, self.pebble_port = ports
        self.requests = self.connections = 0
        self.server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server_tls.load_cert_chain(files / "server.pem", files / "server.key")
        self.server_tls.set_alpn_protocols(list(PROTOCOLS))
        self.ca = files / "ca.pem"
        self.reserve = {}

    def start(self):
        """Serves from now on, until the program ends."""
        # Linux's other ways to wait are in whole milliseconds, and would make each trip longer.
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result()

    async def listen(self):
        for protocol, count in PROTOCOLS.items():
            self.reserve[protocol] = deque(self.connect(protocol) for _ in range(count))
        await asyncio.start_server(
            self.count, "127.0.0.1", self.counter_port, ssl=self.server_tls, backlog=512
        )
        await asyncio.start_server(self.delay, "127.0.0.1", self.port, backlog=512)

    async def delay(self, reader, writer):
        """A line of half a round trip each way, whose TCP handshake takes a whole one."""
        opened = self.loop.time() + self.round_trip
        there, back = await asyncio.open_connection("127.0.0.1", self.counter_port)
        await asyncio.gather(self.carry(reader, back, opened), self.carry(there, writer, opened))
        back.close()
        writer.close()

    async def carry(self, reader, writer, opened):
        """One direction: all in order, nothing before the connection is there."""
        line = asyncio.Queue()
        arrivals = self.loop.create_task(self.arrive(line, writer))
        data = True
        while data:
            data = await read(reader)
            sent = max(self.loop.time(), opened)
            line.put_nowait((sent + self.round_trip / 2, data))
        await arrivals

    async def arrive(self, line, writer):
        while True:
            due, data = await line.get()
            if due > self.loop.time():
                await asyncio.sleep(due - self.loop.time())
            if not data:
                break
            writer.write(data)
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def count(self, reader, writer):
        """A connection whose TLS handshake is done."""
        self.connections += 1
        protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol() or "http/1.1"
        replies, pebble = await self.take(protocol)
        pass_requests = self.pass_http2 if protocol == "h2" else self.pass_http1
        ways = [pass_requests(reader, pebble), pass_all(replies, writer)]
        ways = [self.loop.create_task(way) for way in ways]
        done, pending = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in pending:
            way.cancel()
        writer.close()
        pebble.close()
        for way in done:
            if not isinstance(way.exception(), (EOFError, OSError, type(None))):
                raise way.exception()

    async def pass_http1(self, reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            writer.write(head)
            if re.search(rb"\r\ntransfer-encoding:", head, re.I):
                raise NotImplementedError("a request in chunks")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
            if length:
                writer.write(await reader.readexactly(int(length[1])))

    async def pass_http2(self, reader, writer):
        """Each request is the first HEADERS frame of a stream; later ones are its trailers."""
        writer.write(await reader.readexactly(HTTP2_PREFACE))
        last = 0
        while True:
            head = await reader.readexactly(9)
            stream = int.from_bytes(head[5:9], "big")
            if head[3] == HTTP2_HEADERS and stream > last:
                last = stream
                self.requests += 1
            writer.write(head + await reader.readexactly(int.from_bytes(head[:3], "big")))

    def connect(self, protocol, wait=0):
        tls = ssl.create_default_context(cafile=self.ca)
        tls.set_alpn_protocols([protocol])

        async def open_it():
            await asyncio.sleep(wait)
            return await asyncio.open_connection("localhost", self.pebble_port, ssl=tls)

        return self.loop.create_task(open_it())

    async def take(self, protocol):
        """A connection to Pebble; another one takes its place in the reserve. Pebble itself ends one
        of HTTP/2 that says nothing for 10 seconds."""
        while True:
            self.reserve[protocol].append(self.connect(protocol, REFILL))
            reader, writer = await self.reserve[protocol].popleft()
            if not writer.is_closing():
                return reader, writer


async def read(reader):
    """What has come; nothing at the end, whatever that end was."""
    try:
        return await reader.read(1 << 16)
    except OSError:
        return b""


async def pass_all(reader, writer):
    while data := await read(reader):
        writer.write(data)
