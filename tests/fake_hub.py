"""A Hugging Face hub on this machine: the few calls that a data set's reader makes, with a count of bytes sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CDN = "/cdn"
# drop: no answer; cut: half of the promised content, then nothing; short: half of it, as if that were all.
Break = Literal["drop", "cut", "short"]


@dataclass
class FakeHub:
    """repositories: name -> folder, of the newest commit; earlier: branch -> commit and folder of one before it.

    failing: path prefix -> status that is answered instead, with error_code, while it is in here; breaking: path
    prefix -> how its answer breaks off; redirecting: files are answered with the address of another place.
    """

    repositories: dict[str, Path]
    commit: str = COMMIT
    endpoint: str = ""
    earlier: dict[str, tuple[str, Path]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)  # file -> bytes of its content that were sent
    requests: list[str] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)
    error_code: str = ""
    breaking: dict[str, Break] = field(default_factory=dict)
    redirecting: bool = False
    page: int = 1000  # entries of a listing that are sent at once
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, size: int) -> None:
        with self.lock:
            self.sent[name] = self.sent.get(name, 0) + size

    def forget(self) -> None:
        """Count from here."""
        with self.lock:
            self.sent.clear()
            self.requests.clear()

    @property
    def bytes_sent(self) -> int:
        return sum(self.sent.values())

    def revision(self, name: str, repository: str) -> tuple[str, Path] | None:
        """Commit and folder of a branch or commit; None where there is no such."""
        if name in ("", "main", self.commit):
            return self.commit, self.repositories[repository]
        return next((found for branch, found in self.earlier.items() if name in (branch, found[0])), None)


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go out one after the other, and must not wait for each other

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = urlsplit(self.path).path  # a revision may hold a slash, which comes quoted
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        status = _of_prefix(self.hub.failing, path)
        if status:
            self._send(status, b"{}", with_body, {"X-Error-Code": self.hub.error_code} if self.hub.error_code else {})
            return
        if _of_prefix(self.hub.breaking, path) == "drop":
            self.close_connection = True
            return
        for name in self.hub.repositories:
            if f"{path}/".startswith(f"/api/datasets/{name}/"):
                self._api(path.removeprefix(f"/api/datasets/{name}"), name, with_body)
                return
            resolve = f"/datasets/{name}/resolve/"
            if path.removeprefix(CDN).startswith(resolve):
                revision, _, file = path.removeprefix(CDN).removeprefix(resolve).partition("/")
                found = self._find(revision, name)
                if found and self.hub.redirecting and not path.startswith(CDN):
                    self._send(302, b"", with_body, {"Location": f"{self.hub.endpoint}{CDN}{path}"})
                elif found:
                    self._file(*found, unquote(file), with_body)
                return
        self._send(404, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})

    def _find(self, revision: str, repository: str) -> tuple[str, Path] | None:
        found = self.hub.revision(unquote(revision), repository)
        if found is None:
            self._send(404, b"{}", True, {"X-Error-Code": "RevisionNotFound"})
        return found

    def _api(self, rest: str, name: str, with_body: bool) -> None:
        kind, _, rest = rest.strip("/").partition("/")
        revision, _, below = rest.partition("/")
        found = self._find(revision, name)
        if found is None:
            return
        commit, folder = found
        if kind == "tree":
            self._tree(folder, unquote(below), with_body)
            return
        info = {"id": name, "sha": commit, "private": False, "tags": [], "siblings": [], "downloads": 0}
        self._send(200, json.dumps(info).encode(), with_body)

    def _tree(self, folder: Path, below: str, with_body: bool) -> None:
        recursive = "recursive=true" in self.path.lower()
        root = folder / below
        if not root.exists():
            self._send(404, b"{}", with_body, {"X-Error-Code": "EntryNotFound"})
            return
        found = sorted(root.rglob("*") if recursive else root.iterdir())
        entries = [
            {
                "type": "directory" if path.is_dir() else "file",
                "oid": "0" * 40,
                "size": 0 if path.is_dir() else path.stat().st_size,
                "path": str(path.relative_to(folder)),
            }
            for path in found
        ]
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = start + self.hub.page
        more = f'<{self.hub.endpoint}{self.path.partition("&cursor=")[0]}&cursor={end}>; rel="next"'
        self._send(200, json.dumps(entries[start:end]).encode(), with_body, {"Link": more} if end < len(found) else {})

    def _file(self, commit: str, folder: Path, name: str, with_body: bool) -> None:
        path = folder / name
        if not path.is_file():
            self._send(404, b"{}", with_body, {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        headers = {"ETag": '"0"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        status = 200
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(content), len(content))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
            content, status = content[int(first) : end], 206
        if with_body:
            self.hub.count(name, len(content))
        self._send(status, content, with_body, headers)

    def _send(self, status: int, content: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
        breaking = _of_prefix(self.hub.breaking, urlsplit(self.path).path)
        half = content[: len(content) // 2]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(half if breaking == "short" else content)))
        self.end_headers()
        if with_body:
            self.wfile.write(half if breaking else content)
        if breaking == "cut":
            self.close_connection = True


def _of_prefix(table: dict[str, Any], path: str) -> Any:
    return next((value for prefix, value in table.items() if path.startswith(prefix)), None)


@contextmanager
def serving(repositories: dict[str, Path], commit: str = COMMIT) -> Iterator[FakeHub]:
    """A hub with these repositories, on a free port of this machine."""
    hub = FakeHub(repositories, commit)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
