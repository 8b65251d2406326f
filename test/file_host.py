"""A web server on this machine that behaves as the hosts of models do, well and badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What the server answers for a path.

    Attributes:
        body: the file.
        ranges: whether parts of it can be asked for.
        etag, modified: how the server calls this version.
        status: of the answer to the first requests, one each; the file comes after them.
        retry_after: header of those answers.
        cut: bytes after which the connection ends, of the first transfers, one each.
        stall: bytes after which nothing comes any more while the connection stays open, of the first transfers.
        location: where a redirect leads; empty for none.
        length: whether the length is announced.
        shift: bytes by which parts begin elsewhere than they should.
        encoding: how the body is compressed.
    """

    body: bytes = b""
    ranges: bool = True
    etag: str = '"one"'
    modified: str = ""
    status: list[int] = field(default_factory=list)
    retry_after: str = ""
    cut: list[int] = field(default_factory=list)
    stall: list[int] = field(default_factory=list)
    location: str = ""
    length: bool = True
    shift: int = 0
    encoding: str = ""


@dataclass
class FileHost:
    """The running server.

    Attributes:
        address: of its root.
        files: what it answers, by path.
        requests: path and headers of all requests so far.
    """

    address: str
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def ranges_asked(self) -> list[str]:
        """The parts that were asked for, empty for the whole."""
        return [headers.get("Range", "") for _, headers in self.requests]


@contextmanager
def file_host() -> Iterator[FileHost]:
    """Run a server until the end of the context."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.requests.append((self.path, dict(self.headers)))
            served = host.files.get(self.path)
            if served is None:
                self._answer(404, b"<!DOCTYPE html><html>not found</html>", {"Content-Type": "text/html"})
            elif served.status:
                headers = {"Retry-After": served.retry_after} if served.retry_after else {}
                self._answer(served.status.pop(0), b"later", headers)
            elif served.location:
                self._answer(302, b"", {"Location": served.location})
            else:
                self._file(served)

        def _file(self, served: Served) -> None:
            begin, size = self._begin(served), len(served.body)
            headers = {"ETag": served.etag} if served.etag else {}
            if served.modified:
                headers["Last-Modified"] = served.modified
            if served.encoding:
                headers["Content-Encoding"] = served.encoding
            if begin >= size > 0:
                self._answer(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status = 206 if begin else 200
            if begin:
                begin += served.shift
                headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
            self._answer(status, served.body[begin:], headers, served)

        def _begin(self, served: Served) -> int:
            asked = self.headers.get("Range", "")
            same = self.headers.get("If-Range", "") in ("", served.etag, served.modified)
            return int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.ranges and same else 0

        def _answer(self, status: int, body: bytes, headers: dict[str, str], served: Served | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if served is None or served.length:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if served and served.cut:
                self.wfile.write(body[: served.cut.pop(0)])
                self.close_connection = True
            elif served and served.stall:
                self.wfile.write(body[: served.stall.pop(0)])
                self.wfile.flush()
                ended.wait(60)
                self.close_connection = True
            else:
                # In pieces, as from a slow link.
                for place in range(0, len(body), 1 << 14):
                    self.wfile.write(body[place : place + (1 << 14)])
                    self.wfile.flush()

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            """A client that hangs up is none of our business."""

    server = Server(("127.0.0.1", 0), Handler)
    host = FileHost(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
