"""A local archive: files of a folder over HTTP with ranges and checksums, and faults where a test asks for them."""

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Archive:
    """`faults` are used up one per request of a path: a status, or `cut` after how many bytes."""

    folder: Path
    url: str = ""
    faults: dict[str, list[int | str]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, range) of each request."""
    resumes: bool = True
    key: str = ""

    def content(self, path: str) -> bytes | None:
        """What lies at a path; the checksum beside a file is made."""
        if path.endswith(".CHECKSUM") and not (self.folder / path).exists():
            whole = self.content(path.removesuffix(".CHECKSUM"))
            name = path.rpartition("/")[2].removesuffix(".CHECKSUM")
            return None if whole is None else f"{hashlib.sha256(whole).hexdigest()}  {name}\n".encode()
        file = self.folder / path
        return file.read_bytes() if file.is_file() else None


@contextmanager
def serving(folder: Path) -> Iterator[Archive]:
    """The archive while the context is open."""
    archive = Archive(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, archive)

        def log_message(self, *_: object) -> None:
            """Nothing: tests are silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    archive.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, archive: Archive) -> None:
    path = request.path.lstrip("/")
    wanted = request.headers.get("range", "")
    archive.asked.append((path, wanted))
    fault = archive.faults[path].pop(0) if archive.faults[path] else None
    content = archive.content(path)
    if isinstance(fault, int):
        _send(request, fault, b"not now", {"retry-after": "0"})
    elif archive.key and request.headers.get("authorization") != f"Bearer {archive.key}":
        _send(request, 401, b"no key", {})
    elif content is None:
        _send(request, 404, b"not here", {})
    else:
        _send_content(request, archive, content, wanted, fault)


def _send_content(
    request: BaseHTTPRequestHandler, archive: Archive, content: bytes, wanted: str, fault: str | None
) -> None:
    begin = int(match[1]) if archive.resumes and (match := re.fullmatch(r"bytes=(\d+)-", wanted)) else 0
    if begin and begin >= len(content):
        _send(request, 416, b"", {})
        return
    headers = {"content-range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
    body = content[begin:]
    cut = int(fault.removeprefix("cut ")) if fault else None
    _send(request, 206 if begin else 200, body, headers, cut)


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
) -> None:
    request.send_response(status)
    for name, value in {**headers, "content-length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body[:cut])
    if cut is not None:
        request.wfile.flush()
        request.close_connection = True
