"""A data-set hub on this machine: as much of Hugging Face's as `datasets` needs to stream one data set.

`Hub(folder)` serves the folder under every name, with byte ranges; `gone` are files that it pretends to have lost.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A context with `url`; `requests` are the paths that were fetched."""

    def __init__(self, folder):
        self.folder, self.gone, self.requests = folder, set(), []
        handler = type("Bound", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def entry(self, path):
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
        data = path.read_bytes()
        return {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlparse(self.path)
        for pattern, answer in ROUTES:
            if found := re.fullmatch(pattern, unquote(url.path)):
                return answer(self, found[1] if found.re.groups else "", parse_qs(url.query))
        return self.missing()

    do_HEAD = do_GET

    def info(self, *_):
        names = [p.relative_to(self.hub.folder).as_posix() for p in self.hub.folder.rglob("*") if p.is_file()]
        siblings = [{"rfilename": name} for name in names]
        self.json({"id": "any/name", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def tree(self, name, query):
        folder = self.hub.folder / name.strip("/")
        if not folder.is_dir():
            return self.missing()
        paths = folder.rglob("*") if query.get("recursive") == ["true"] else folder.iterdir()
        return self.json([self.hub.entry(path) for path in sorted(paths)])

    def file(self, name, _):
        path = self.hub.folder / name
        self.hub.requests.append(name)
        if not path.is_file() or name in self.hub.gone:
            return self.missing()
        data = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        if wanted := self.headers.get("Range"):
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
            stop = min(len(data), int(last) + 1 if last else len(data))
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            return self.answer(206, data[int(first) : stop], headers)
        return self.answer(200, data, headers)

    def json(self, content):
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def missing(self):
        self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def answer(self, code, body, headers):
        self.send_response(code)
        for key, value in {"Content-Length": len(body), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


ROUTES = [
    (r"/api/datasets/[^/]+/[^/]+(?:/revision/[^/]+)?", Handler.info),
    (r"/api/datasets/[^/]+/[^/]+/tree/[^/]+((?:/.*)?)", Handler.tree),
    (r"/datasets/[^/]+/[^/]+/resolve/[^/]+/(.*)", Handler.file),
]
