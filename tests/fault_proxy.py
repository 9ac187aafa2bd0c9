"""A proxy on loopback that fails on purpose, in front of a real server.

    with fault_proxy(nginx_url) as proxy: proxy.faults["a.tar"] = ["500", "cut"]; read from proxy.url

Faults are taken one a request of that name: ``500`` (any status), ``cut`` (half of the body, then a reset), ``short``
(half of the body, then the end), ``less`` (half of the body, and a length that says so), ``stall`` (``stall_s`` in
mid-body), ``wrong`` (a byte of the body is another), ``gone`` (nobody listens for ``gone_s``). ``always[name]`` stays.
"""

import asyncio
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit


class FaultProxy:
    """Listens in a thread of its own."""

    def __init__(self, behind: str, *, stall_s: float = 10.0, gone_s: float = 20.0) -> None:
        self._behind = urlsplit(behind)
        self.stall_s, self.gone_s = stall_s, gone_s
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.always: dict[str, str] = {}
        self.requests: list[str] = []
        self.taken: list[tuple[str, str]] = []
        """Name and fault of what has gone wrong so far."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self._port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def start(self) -> None:
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        self.stall_s = 0.0
        asyncio.run_coroutine_threadsafe(self._be_gone(0.2), self._loop).result(10)
        asyncio.run_coroutine_threadsafe(self._be_gone(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _be_gone(self, for_s: float | None = None) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        if for_s is not None:
            await asyncio.sleep(for_s)
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        self._open.discard(writer)
        writer.close()

    def _fault(self, name: str) -> str:
        fault = self.faults[name].pop(0) if self.faults[name] else self.always.get(name, "")
        if fault:
            self.taken.append((name, fault))
        return fault

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        path = unquote(request.split(b" ", 2)[1].decode())
        name = path.rpartition("/")[2]
        self.requests.append(name)
        fault = self._fault(name)
        if fault == "gone":
            self._loop.create_task(self._be_gone(self.gone_s))
            raise ConnectionError
        if fault.isdigit():
            writer.write(f"HTTP/1.1 {fault} Broken\r\nContent-Length: 0\r\n\r\n".encode())
            return
        head, body = await self._ask(request)
        half = len(body) // 2
        if fault == "wrong":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "less":
            head, body = head.replace(f"ength: {len(body)}".encode(), f"ength: {half}".encode()), body[:half]
        writer.write(head + body[:half])
        await writer.drain()
        begin = self._loop.time()
        while fault == "stall" and self._loop.time() - begin < self.stall_s:
            await asyncio.sleep(0.05)
        if fault == "cut":
            await asyncio.sleep(0.1)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if fault in ("cut", "short"):
            raise ConnectionError
        writer.write(body[half:])
        await writer.drain()

    async def _ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the server behind."""
        reader, writer = await asyncio.open_connection(self._behind.hostname, self._behind.port)
        first, _, rest = request.partition(b"\r\n")
        writer.write(first + b"\r\nConnection: close\r\n" + rest)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read()
        writer.close()
        return head.replace(b"Connection: close\r\n", b""), body


@contextmanager
def fault_proxy(behind: str, **options: float) -> Iterator[FaultProxy]:
    """A :class:`FaultProxy` of this server, listening."""
    proxy = FaultProxy(behind, **options)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
