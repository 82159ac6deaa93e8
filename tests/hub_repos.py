"""Repositories of the hub on loopback: commits, listings in pages, revisions, tokens, and bytes by redirect."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote

from web_server import part_of

_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|paths-info|auth-check)(?:/([^/?]+)(?:/([^?]*))?)?"
)
_RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")
_SMALL = (".json", ".txt", ".md")
"""What lies in git itself, and is served by the hub; anything else is a large file."""


@dataclass
class Repo:
    """A repository. With `token`, only requests with that token see it; a gated one can be listed and not be read."""

    hub: object
    name: str
    first: dict[str, bytes] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.commit(self.first)

    @property
    def files(self):
        return self.commits.get(self.refs.get("main", ""), {})

    def commit(self, files, removed=()):
        """Put files on top of the branch main; return the commit."""
        whole = {path: body for path, body in (self.files | files).items() if path not in removed}
        sha = hashlib.sha1(f"{self.name}{len(self.commits)}".encode()).hexdigest()
        self.commits[sha], self.refs["main"] = whole, sha
        self.hub.served |= {hashlib.sha256(body).hexdigest(): body for body in files.values()}
        return sha


def answer_about_repo(hub, url, headers, form):
    """Return status, headers and body of the answer to a request that is about a repository; None for another."""
    api, resolve = _API.match(url), _RESOLVE.match(url)
    if api:
        kind, name, what, revision, path = api.groups()
    elif resolve:
        (kind, name, revision, path), what = resolve.groups(), "resolve"
    else:
        return None
    repo = hub.repos.get(f"datasets/{name}" if kind == "datasets" else name)
    if repo is None and not api:
        return None
    token = (headers["Authorization"] or "").removeprefix("Bearer ")
    if repo is None or (repo.token and token != repo.token):
        return refuse(404 if token else 401, "RepoNotFound", "Repository not found")
    if repo.gated and what in ("resolve", "auth-check"):
        return refuse(403 if token else 401, "GatedRepo", "Access is restricted")
    commit = repo.refs.get(unquote(revision or "main"), unquote(revision or ""))
    if commit not in repo.commits:
        return refuse(404, "RevisionNotFound", "Invalid rev id")
    files, path = repo.commits[commit], unquote(path or "")
    if what == "tree":
        return _list_tree(hub, url, files, path)
    if what == "resolve":
        return _resolve(hub, files, path)
    if what == "paths-info":
        entries = {entry["path"]: entry for entry in _entries(files, "", is_recursive=True)}
        return _answer([entries[path] for path in parse_qs(form)["paths"] if path in entries])
    return _answer({"id": repo.name, "sha": commit, "gated": "auto" if repo.gated else False})


def refuse(status, code, message):
    return status, {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"}, b""


def _answer(value, **headers):
    body = json.dumps(value).encode()
    return 200, {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers, body


def _list_tree(hub, url, files, path):
    where, _, query = url.partition("?")
    asked = parse_qs(query)
    is_recursive, start = asked["recursive"] == ["true"], int(asked.get("cursor", ["0"])[0])
    entries = _entries(files, path, is_recursive)
    if path and not entries:
        return refuse(404, "EntryNotFound", f"{path} does not exist")
    page, end = entries[start : start + hub.page_size], start + hub.page_size
    more = f"<https://hub.invalid{where}?recursive={asked['recursive'][0]}&expand=false&cursor={end}>"  # no such host
    return _answer(page, **({"Link": f'{more}; rel="next"'} if end < len(entries) else {}))


def _entries(files, folder, is_recursive):
    prefix = f"{folder}/" if folder else ""
    below = sorted(path for path in files if path.startswith(prefix))
    folders = {path.rpartition("/")[0] for path in below}
    folders |= {"/".join(parts[:n]) for parts in (f.split("/") for f in folders) for n in range(1, len(parts))}
    found = [
        {"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders if f.startswith(prefix) and f
    ]
    found += [_file_entry(path, files[path]) for path in below]
    if not is_recursive:
        found = [entry for entry in found if "/" not in entry["path"].removeprefix(prefix)]
    return sorted(found, key=lambda entry: entry["path"])


def _file_entry(path, body):
    entry = {"type": "file", "path": path, "oid": hashlib.sha1(body).hexdigest(), "size": len(body)}
    if path.endswith(_SMALL):
        return entry
    large = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
    return entry | {"lfs": large, "xetHash": "0" * 64}


def _resolve(hub, files, path):
    body = files.get(path)
    if body is None:
        return refuse(404, "EntryNotFound", "Entry not found")
    if path.endswith(_SMALL):  # these have no ranges here
        return part_of(body, None)
    address = f"{hub.cdn.url}/{hashlib.sha256(body).hexdigest()}/{quote(path)}?Signature={hub.signature}"
    return 302, {"Location": address, "Content-Length": "0"}, b""
