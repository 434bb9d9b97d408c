"""A small hub on this machine, which speaks as much of the real one's protocol as its clients ask for.

Files of ten thousand bytes and more, and parquet, are large ones: known by their sha256, and served by another host.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
SENT = re.compile(r"/(?:cdn|api/resolve-cache)/(models|datasets)/([^/]+/[^/]+)/(.+)")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    commit: str = field(init=False)

    def __post_init__(self) -> None:
        self.commit = hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def is_large(self, path: str) -> bool:
        return len(self.files[path]) >= 10_000 or path.endswith(".parquet")

    def etag(self, path: str) -> str:
        data = self.files[path]
        return hashlib.sha256(data).hexdigest() if self.is_large(path) else self.oid(path)

    def oid(self, path: str) -> str:
        data = self.files[path]
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        size = len(self.files[path])
        lfs = {"oid": self.etag(path), "size": size, "pointerSize": 130} if self.is_large(path) else None
        return {"type": "file", "path": path, "size": size, "oid": self.oid(path)} | ({"lfs": lfs} if lfs else {})

    def tree(self, below: str, recursive: bool) -> list[dict[str, Any]]:
        inside = [path for path in self.files if not below or path.startswith(f"{below}/")]
        folders = {str(parent) for path in inside for parent in PurePosixPath(path).parents} - {".", below}
        depth = below.count("/") + 1 if below else 0
        entries = [self.entry(path) for path in inside]
        entries += [{"type": "directory", "path": path, "oid": "0" * 40} for path in sorted(folders)]
        return [entry for entry in entries if recursive or entry["path"].count("/") == depth]


class Hub:
    """What it has, and what it has been asked for."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.gets: list[str] = []
        """Paths of the files that were sent."""
        self.cut_short: dict[str, int] = {}
        """Files of which only half is sent, and how many times yet."""
        self.wrong: dict[str, int] = {}
        """Files that are sent with another content, likewise."""
        self.held: dict[str, threading.Event] = {}
        """Files whose second half is sent only when it is set."""
        self.port = 0

    def add(self, kind: str, name: str, files: dict[str, bytes], gated: bool = False) -> Repo:
        self.repos[kind, name] = Repo(files, gated)
        return self.repos[kind, name]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if match := API.fullmatch(url.path):
            kind, name, what, revision, below = match.groups()
            if repo := self._find(kind, name, revision or "main"):
                if what == "tree":
                    self._json(repo.tree(below or "", parse_qs(url.query).get("recursive") == ["true"]))
                else:
                    self._json({"id": name, "sha": repo.commit, "siblings": [{"rfilename": p} for p in repo.files]})
        elif match := FILE.fullmatch(unquote(url.path)):
            self._resolve("datasets" if match[1] else "models", *match.groups()[1:])
        elif match := SENT.fullmatch(unquote(url.path)):
            repo, path = self.hub.repos[match[1], match[2]], match[3]
            self._send(repo, path, {"X-Repo-Commit": repo.commit, "ETag": f'"{repo.etag(path)}"'})
        else:
            self._fail(404, "EntryNotFound")

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        match = API.fullmatch(urlsplit(self.path).path)
        assert match is not None and match[3] == "paths-info", self.path
        if repo := self._find(match[1], match[2], match[4]):
            self._json([repo.entry(path) for path in sent["paths"] if path in repo.files])

    def _find(self, kind: str, name: str, revision: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if self.headers.get("Authorization") == "Bearer expired":
            self._fail(401, "", message="Invalid credentials in Authorization header")
        elif repo is None:  # who may not know is told the same of a private one
            self._fail(401, "RepoNotFound")
        elif unquote(revision) not in ("main", repo.commit):
            self._fail(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self._find(kind, name, revision)
        if repo is None:
            return
        token = self.headers.get("Authorization")
        if repo.gated and token != "Bearer good":
            self._fail(403 if token else 401, "GatedRepo")
        elif path not in repo.files:
            self._fail(404, "EntryNotFound", repo.commit)
        elif repo.is_large(path):
            self._head(302, {
                "X-Repo-Commit": repo.commit, "X-Linked-ETag": f'"{repo.etag(path)}"',
                "X-Linked-Size": str(len(repo.files[path])), "Content-Length": "0",
                "Location": f"http://localhost:{self.hub.port}/cdn/{kind}/{name}/{path}",
            })  # fmt: skip
        else:
            place = f"/api/resolve-cache/{kind}/{name}/{path}"
            self._head(307, {"X-Repo-Commit": repo.commit, "Content-Length": "0", "Location": place})

    def _send(self, repo: Repo, path: str, headers: dict[str, str]) -> None:
        data = repo.files[path]
        if self.command == "HEAD":
            self._head(200, {**headers, "Content-Length": str(len(data))})
            return
        if _spend(self.hub.wrong, path):
            data = bytes(len(data))
        begin = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        more = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        self._head(206 if begin else 200, {**headers, **more, "Content-Length": str(len(data) - begin)})
        self.hub.gets.append(path)
        half = begin + (len(data) - begin) // 2
        self.wfile.write(data[begin:half])
        if _spend(self.hub.cut_short, path):
            self.close_connection = True
            return
        if path in self.hub.held:
            self.hub.held[path].wait(60)
        with suppress(ConnectionError):  # who has asked may be gone
            self.wfile.write(data[half:])

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(data))})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _fail(self, status: int, code: str, commit: str = "", message: str = "") -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self._head(status, {**told, "Content-Length": "0"})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _spend(counts: dict[str, int], path: str) -> bool:
    counts[path] = counts.get(path, 0) - 1
    return counts[path] >= 0
