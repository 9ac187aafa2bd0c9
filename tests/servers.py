"""Servers on loopback: one that fails on purpose, nginx, an object store."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock
from urllib.parse import unquote
from urllib.request import Request, urlopen

from aar_dist.base import remote


class FaultyServer:
    """Serves a folder over HTTP with ranges. ``faults[name]`` are taken one a request; ``always[name]`` stays.

    Faults: ``500``, ``403``, … (any status), ``cut`` (half of the body, then the connection closes), ``short`` (half,
    with a length to match), ``long`` (one byte more, with a length to match), ``stall`` (``stall_s`` in mid-body),
    ``wrong`` (bytes of another file), ``replaced`` (another ETag), ``no_range`` (200 for a range), ``huge`` (10 TB told
    and nothing sent).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.always: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None, str | None]] = []
        """Method, name, range, authorization."""
        self.stall_s = 10.0
        self._server: ThreadingHTTPServer | None = None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen (again)."""
        handler = type("Handler", (_Handler,), {"of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Be gone: connections are refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fault(self, name: str) -> str:
        if name in self.always:
            return self.always[name]
        return self.faults[name].pop(0) if self.faults[name] else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: FaultyServer

    def log_message(self, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = unquote(self.path.partition("?")[0]).lstrip("/")
        asked = self.headers.get("Range")
        self.of.requests.append((self.command, name, asked, self.headers.get("Authorization")))
        fault = self.of.fault(name)
        path = self.of.folder / name
        if fault.isdigit() or not path.is_file():
            self._answer(int(fault or 404), b"")
            return
        data = path.read_bytes()
        data = {"short": data[: len(data) // 2], "long": data + b"x", "wrong": data[::-1]}.get(fault, data)
        first = int(asked.removeprefix("bytes=").split("-")[0]) if asked and fault != "no_range" else 0
        with suppress(ConnectionError):
            self._answer(206 if first else 200, data, first, fault)

    def _answer(self, status: int, data: bytes, first: int = 0, fault: str = "") -> None:
        body = data[first:]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(10**13 if fault == "huge" else len(body)))
        self.send_header("ETag", '"two"' if fault == "replaced" else '"one"')
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            body = body[len(body) // 2 :]
        if fault == "stall":
            time.sleep(self.of.stall_s)
        if fault in ("cut", "huge"):
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def faulty(folder: Path) -> Iterator[FaultyServer]:
    """A :class:`FaultyServer`, listening."""
    server = FaultyServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def object_store(*buckets: str) -> Iterator[str]:
    """An S3 (moto) with these buckets; the environment points at it meanwhile. Yields its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_REGION": "us-east-1",
    }  # fmt: skip
    try:
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # all servers share one state
        with mock.patch.dict(os.environ, settings), _one_write_at_a_time():
            import boto3

            client = boto3.client("s3", region_name="us-east-1")
            for bucket in buckets:
                client.create_bucket(Bucket=bucket)
            yield settings["AWS_ENDPOINT_URL"]
    finally:
        server.stop()
        remote._transport.cache_clear()  # a later one of the same bucket has another address


@contextmanager
def _one_write_at_a_time() -> Iterator[None]:
    """S3 looks whether a file is there and writes it in one step, moto in two."""
    from moto.s3.responses import S3Response

    lock, put = threading.Lock(), S3Response.put_object

    def locked(self: S3Response) -> object:
        with lock:
            return put(self)

    with mock.patch.object(S3Response, "put_object", locked):
        yield


NGINX = """
daemon off; master_process off; pid {run}/pid; error_log {run}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ root {folder}; {options} }} }}
}}
"""


@contextmanager
def nginx(folder: Path, run: Path, options: str = "") -> Iterator[str]:
    """A real web server of this folder; ``options`` are directives such as ``limit_rate 100k;``. Yields its URL.

    Args:
        run: an empty folder for its own files.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = Path(sys.prefix) / "debian/usr/sbin"
    program = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", str(own)]))
    assert program, "no nginx: run launch/packages.sh .venv, or: apt-get install nginx"
    (run / "nginx.conf").write_text(NGINX.format(run=run, folder=folder, port=port, options=options))
    process = subprocess.Popen([program, "-c", run / "nginx.conf", "-p", run, "-e", run / "error.log"])
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
