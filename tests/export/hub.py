"""A stand-in for the Hugging Face hub on loopback: as much of its API as an upload asks for.

It takes every file as a regular one, inside the commit; the hub takes large ones apart from it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standinstandinstandin"


class Hub:
    """What the stand-in holds: repository -> whether it is private, and its files.

    refuses: the end of a path that it answers with `refusal`, a status. asked: method and path of
    each request.
    """

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuses = ""
        self.refusal = 403
        self.asked: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any, str]:
        """Status, JSON and error code."""
        self.asked.append(f"{method} {path}")
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}, ""
        if self.refuses and path.endswith(self.refuses):
            return self.refusal, {"error": "Storage is full"}, ""
        if path == "/api/whoami-v2":
            return 200, {"name": "someone", "type": "user", "auth": {}}, ""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, ""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        repo = "/".join(path.split("/")[3:5])
        if repo not in self.private:
            return 404, {"error": "Repository not found"}, "RepoNotFound"
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": files}, ""
        if "/commit/" in path:
            return self._commit(repo, body)
        if path == f"/api/models/{repo}":
            return 200, {"id": repo, "private": self.private[repo], "siblings": [], "tags": []}, ""
        return 404, {"error": f"the stand-in does not know {path}"}, "EntryNotFound"

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any, str]:
        repo = "/".join(filter(None, [wanted.get("organization"), wanted["name"]]))
        if repo in self.private:
            there = {"error": "You already created this model repo", "url": f"{self.url}/{repo}"}
            return 409, there, ""
        self.private[repo] = bool(wanted.get("private") or wanted.get("visibility") == "private")
        self.files[repo] = {}
        return 200, {"url": f"{self.url}/{repo}", "name": repo, "id": repo}, ""

    def _commit(self, repo: str, body: bytes) -> tuple[int, Any, str]:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.files[repo][entry["value"]["path"]] = content
        oid = "0" * 40
        url = f"{self.url}/{repo}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}, ""


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The URL of a hub on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            token = self.headers.get("Authorization", "")
            status, document, code = hub.answer(self.command, path, token, body)
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            if code:
                self.send_header("X-Error-Code", code)
            if status >= 400:
                self.send_header("X-Error-Message", document["error"])
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
