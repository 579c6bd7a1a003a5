"""A small Hub on loopback: repositories in memory, and the requests that the client library makes of them."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackHub:
    """Repositories by name, each a dict of files, and a refusal to give, if any.

    Attributes:
        repositories: files of the default branch's head, by repository.
        commits: how many commits each repository has had.
        refusal: (part of a path, status) to be answered so; status 0 closes the connection.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, int] = {}
        self.refusal: tuple[str, int] | None = None
        self.address = ""

    def commit_id(self, name: str) -> str:
        """Return the head's id."""
        return hashlib.sha1(f"{name} {self.commits[name]}".encode()).hexdigest()

    def commit(self, name: str, lines: list[dict]) -> None:
        """Add the files of a commit, all or none."""
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        self.repositories[name].update(files)
        self.commits[name] += 1

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        if method == "POST" and path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(part for part in (wanted.get("organization"), wanted["name"]) if part)
            if name in self.repositories:
                return 409, {}, json.dumps({"error": "there already", "url": f"{self.address}/{name}"}).encode()
            self.repositories[name], self.commits[name] = {}, 0
            return 200, {}, json.dumps({"url": f"{self.address}/{name}", "id": name}).encode()
        if path == "/api/validate-yaml":
            return 200, {}, json.dumps({"errors": [], "warnings": []}).encode()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            return 200, {}, json.dumps({"files": [{**one, "shouldIgnore": False} for one in files]}).encode()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(found[1], [json.loads(line) for line in body.splitlines() if line])
            done = {"commitUrl": f"{self.address}/{found[1]}/commit/{self.commit_id(found[1])}"}
            return 200, {}, json.dumps({**done, "commitOid": self.commit_id(found[1]), "success": True}).encode()
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self.repositories.get(found[1])
            if files is None or found[3] not in files:
                code = "RepoNotFound" if files is None else "EntryNotFound"
                return 404, {"X-Error-Code": code}, b""
            content = files[found[3]]
            etag = hashlib.sha1(content).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit_id(found[1])}, content
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            if found[1] not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound"}, b""
            siblings = [{"rfilename": name} for name in self.repositories[found[1]]]
            info = {
                "id": found[1],
                "sha": self.commit_id(found[1]),
                "siblings": siblings,
                "tags": [],
                "private": False,
            }
            return 200, {}, json.dumps(info).encode()
        return 404, {"X-Error-Code": "EntryNotFound"}, b""

    @contextmanager
    def serve(self):
        """Serve until the block ends; give the server's address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                path = self.path.partition("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                method = "GET" if self.command == "HEAD" else self.command
                if hub.refusal and hub.refusal[0] in path:
                    if hub.refusal[1] == 0:
                        self.close_connection = True
                        self.connection.close()
                        return
                    status, headers, content = hub.refusal[1], {}, b'{"error": "refused"}'
                else:
                    status, headers, content = hub.answer(method, path, body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = handle_any

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            self.address = f"http://127.0.0.1:{server.server_address[1]}"
            yield self.address
        finally:
            server.shutdown()
            server.server_close()
