"""A small Hub on loopback: repositories in memory, and the requests that the client libraries make of them.

Models and data sets, branches, commits as JSON lines, large files as LFS objects that must be uploaded before they are
committed, downloads by branch or commit.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

LARGE = 20_000  # bytes from which on a file is uploaded as an LFS object
NOT_FOUND = {"repository": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound"}


class Missing(Exception):
    """What is not there, one of `NOT_FOUND`."""


@dataclass
class Repository:
    """A repository: its branches, each a list of whole states {path: content}, the newest last.

    One that is gated is seen by everybody, and its files by nobody.
    """

    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, list[dict[str, bytes]]] = field(default_factory=lambda: {"main": [{".gitattributes": b""}]})

    def commit_id(self, branch: str, number: int) -> str:
        """Return the id of a branch's commit; a branch begins with the commits of the one it was made from."""
        state = self.branches[branch][number]
        digests = [(path, hashlib.sha1(content).hexdigest()) for path, content in sorted(state.items())]
        return hashlib.sha1(f"{self.name} {number % len(self.branches[branch])} {digests}".encode()).hexdigest()

    def find(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """Return id and files of a branch's head or of a commit."""
        if revision in self.branches:
            return self.commit_id(revision, -1), self.branches[revision][-1]
        for branch, states in self.branches.items():
            for number, state in enumerate(states):
                if self.commit_id(branch, number) == revision:
                    return revision, state
        raise Missing("revision")


class LoopbackHub:
    """Repositories by name, with "datasets/" before a data set's; large objects; a refusal to give, if any.

    Attributes:
        repositories: what there is.
        objects: large files by their SHA-256.
        refusal: (part of a path, status) to be answered so; status 0 closes the connection.
        token: what a request must bear to be answered, None for any.
        requests: "METHOD path" of all there were.
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.refusal: tuple[str, int] | None = None
        self.token: str | None = None
        self.requests: list[str] = []
        self.address = ""

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """Return what was pushed to a branch's head."""
        head = self.repositories[name].branches[branch][-1]
        return {path: content for path, content in head.items() if path != ".gitattributes"}

    def commits(self, name: str, branch: str = "main") -> int:
        """Return how often a branch was pushed to."""
        return len(self.repositories[name].branches[branch]) - 1

    def put(self, name: str, folder: Path, branch: str = "main") -> str:
        """Make a folder's files a commit of a branch, the only contents; return its id."""
        branches = self.repositories.setdefault(name, Repository(name)).branches
        state = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        branches.setdefault(branch, []).append(state)
        return self.repositories[name].commit_id(branch, -1)

    def repository(self, name: str) -> Repository:
        """Return a repository; Missing where there is none."""
        if name not in self.repositories:
            raise Missing("repository")
        return self.repositories[name]

    def create(self, body: bytes) -> tuple:
        """Answer repos/create."""
        wanted = json.loads(body)
        name = "/".join(part for part in (wanted.get("organization"), wanted["name"]) if part)
        key = f"datasets/{name}" if wanted.get("type") == "dataset" else name
        address = {"url": f"{self.address}/{key}"}
        if key in self.repositories:
            return 409, {}, {"error": "there already", **address}
        self.repositories[key] = Repository(key, private=wanted.get("visibility") == "private")
        return 200, {}, {"id": name, **address}

    def commit(self, repository: Repository, branch: str, body: bytes) -> tuple:
        """Answer a commit: all of its lines take effect, or none."""
        state = dict(repository.branches[branch][-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                state[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {}, {"error": f"{value['path']}: the object was not uploaded"}
                state[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del state[value["path"]]
        repository.branches[branch].append(state)
        commit = repository.commit_id(branch, -1)
        address = f"{self.address}/{repository.name}/commit/{commit}"
        return 200, {}, {"commitUrl": address, "commitOid": commit, "success": True}

    def large_objects(self, body: bytes) -> tuple:
        """Answer an LFS batch: where to upload the objects that are not there yet."""
        objects = []
        for one in json.loads(body)["objects"]:
            action = {"upload": {"href": f"{self.address}/lfs/{one['oid']}"}}
            objects.append({**one, **({} if one["oid"] in self.objects else {"actions": action})})
        return 200, {}, {"transfer": "basic", "objects": objects}

    def entry(self, path: str, content: bytes) -> dict:
        """Describe a file as the tree does."""
        oid = hashlib.sha256(content).hexdigest()
        large = {"lfs": {"oid": oid, "size": len(content), "pointerSize": 1}} if oid in self.objects else {}
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest(), **large}

    def tree(self, files: dict[str, bytes], folder: str, is_recursive: bool) -> tuple:
        """Answer what is in a folder: files and folders, those below them too where it is recursive."""
        prefix = f"{folder}/" if folder else ""
        below = [path for path in sorted(files) if path.startswith(prefix)]
        if not below:
            raise Missing("file")
        inner = {path[:end] for path in below for end, mark in enumerate(path) if mark == "/" and end > len(prefix)}
        entries = [{"type": "directory", "path": name, "size": 0, "oid": ""} for name in sorted(inner)]
        entries += [self.entry(path, files[path]) for path in below]
        return 200, {}, [one for one in entries if is_recursive or "/" not in one["path"].removeprefix(prefix)]

    def ask(self, key: str, what: str, revision: str, body: bytes, is_recursive: bool = False) -> tuple:
        """Answer what is asked of one repository under /api/."""
        repository = self.repository(key)
        if what == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": repository.commit_id(name, -1)}
                for name in repository.branches
            ]
            return 200, {}, {"branches": branches, "tags": [], "converts": []}
        if what == "branch":
            if revision in repository.branches:
                return 409, {}, {"error": "there already"}
            repository.branches[revision] = list(repository.branches["main"])
            return 200, {}, {}
        if what in ("preupload", "commit") and revision not in repository.branches:
            raise Missing("revision")
        if what == "commit":
            return self.commit(repository, revision, body)
        if what == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return 200, {}, {"files": files}
        commit, files = repository.find(revision.partition("/")[0])
        if what == "tree":
            return self.tree(files, revision.partition("/")[2], is_recursive)
        if what == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            return 200, {}, [self.entry(path, files[path]) for path in wanted if path in files]
        about = {"id": repository.name.removeprefix("datasets/"), "sha": commit, "private": repository.private}
        return 200, {}, {**about, "siblings": [{"rfilename": path} for path in sorted(files)], "tags": []}

    def answer(self, method: str, path: str, body: bytes, query: str = "") -> tuple:
        """Return status, headers, and bytes or what is to become JSON."""
        if path == "/api/repos/create":
            return self.create(body)
        if path == "/api/validate-yaml":
            return 200, {}, {"errors": [], "warnings": []}
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.large_objects(body)
        if path.startswith("/lfs/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}, b""
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+)(?:/(.+))?)?", path):
            key = found[2] if found[1] == "models" else f"datasets/{found[2]}"
            return self.ask(key, found[3] or "revision", found[4] or "main", body, "recursive=true" in query.lower())
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self.repository(found[1]).gated:
                return 403, {"X-Error-Code": "GatedRepo"}, {"error": "ask for access"}
            commit, files = self.repository(found[1]).find(found[2])
            if found[3] not in files:
                return 404, {"X-Error-Code": NOT_FOUND["file"], "X-Repo-Commit": commit}, b""
            etag = hashlib.sha256(files[found[3]]).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, files[found[3]]
        raise Missing("file")

    @contextmanager
    def serve(self):
        """Serve until the block ends; give the server's address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                path, _, query = self.path.partition("?")
                path = unquote(path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.requests.append(f"{self.command} {path}")
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    status, headers, content = 401, {"X-Error-Code": "RepoNotFound"}, {"error": "who are you?"}
                elif hub.refusal and hub.refusal[0] in path:
                    if hub.refusal[1] == 0:
                        self.close_connection = True
                        return
                    status, headers, content = hub.refusal[1], {}, {"error": "refused"}
                else:
                    try:
                        status, headers, content = hub.answer(self.command, path, body, query)
                    except Missing as missing:
                        status, headers, content = 404, {"X-Error-Code": NOT_FOUND[missing.args[0]]}, b""
                if not isinstance(content, bytes):
                    content = json.dumps(content).encode()
                if status == 200 and (span := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")):
                    status, content = 206, content[int(span[1]) : int(span[2] or len(content)) + 1]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = handle_any

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()  # a quick shutdown
        try:
            self.address = f"http://127.0.0.1:{server.server_address[1]}"
            yield self.address
        finally:
            server.shutdown()
            server.server_close()
