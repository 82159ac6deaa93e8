"""Repositories of the hub on loopback: commits, listings in pages, revisions, tokens, and bytes by redirect."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlsplit

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


def answer_about_repo(handler, hub):
    """Answer a request that is about a repository; return whether it was."""
    api, resolve = _API.match(handler.path), _RESOLVE.match(handler.path)
    if api:
        kind, name, what, revision, path = api.groups()
    elif resolve:
        (kind, name, revision, path), what = resolve.groups(), "resolve"
    else:
        return False
    repo = hub.repos.get(f"datasets/{name}" if kind == "datasets" else name)
    if repo is None and not api:
        return False
    token = (handler.headers["Authorization"] or "").removeprefix("Bearer ")
    if repo is None or (repo.token and token != repo.token):
        _refuse(handler, 404 if token else 401, "RepoNotFound", "Repository not found")
        return True
    if repo.gated and what in ("resolve", "auth-check"):
        _refuse(handler, 403 if token else 401, "GatedRepo", "Access is restricted")
        return True
    commit = repo.refs.get(unquote(revision or "main"), unquote(revision or ""))
    if commit not in repo.commits:
        _refuse(handler, 404, "RevisionNotFound", "Invalid rev id")
        return True
    _ANSWERS[what](handler, hub, repo, commit, unquote(path or ""))
    return True


def _refuse(handler, status, code, message):
    handler.answer(status, {"X-Error-Code": code, "X-Error-Message": message})


def _send(handler, value, **headers):
    handler.answer(200, {"Content-Type": "application/json"} | headers, json.dumps(value).encode())


def _revision(handler, _hub, repo, commit, _path):
    _send(handler, {"id": repo.name, "sha": commit, "gated": "auto" if repo.gated else False})


def _tree(handler, hub, repo, commit, path):
    query = parse_qs(urlsplit(handler.path).query)
    is_recursive, start = query["recursive"] == ["true"], int(query.get("cursor", ["0"])[0])
    entries = _entries(repo.commits[commit], path, is_recursive)
    if path and not entries:
        _refuse(handler, 404, "EntryNotFound", f"{path} does not exist")
        return
    page, end = entries[start : start + hub.page_size], start + hub.page_size
    where, _, _ = handler.path.partition("?")
    more = f"<https://hub.invalid{where}?recursive={query['recursive'][0]}&expand=false&cursor={end}>"  # no such host
    _send(handler, page, **({"Link": f'{more}; rel="next"'} if end < len(entries) else {}))


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


def _paths_info(handler, _hub, repo, commit, _path):
    files = repo.commits[commit]
    wanted = parse_qs(handler.form)["paths"]
    entries = {entry["path"]: entry for entry in _entries(files, "", is_recursive=True)}
    _send(handler, [entries[path] for path in wanted if path in entries])


def _resolve(handler, hub, repo, commit, path):
    body = repo.commits[commit].get(path)
    if body is None:
        _refuse(handler, 404, "EntryNotFound", "Entry not found")
        return
    headers = {"X-Repo-Commit": commit}
    if path.endswith(_SMALL):  # these have no ranges here
        handler.answer(200, headers | {"ETag": f'"{hashlib.sha1(body).hexdigest()}"'}, body)
        return
    sha256 = hashlib.sha256(body).hexdigest()
    linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": len(body), "X-Xet-Hash": "0" * 64}
    place = f"{hub.cdn_url}/{sha256}/{quote(path)}?Signature={hub.signature}"
    handler.answer(302, headers | linked | {"Location": place})


def _auth_check(handler, *_):
    handler.answer(200, {})


_ANSWERS = {
    "auth-check": _auth_check,
    "revision": _revision,
    "tree": _tree,
    "paths-info": _paths_info,
    "resolve": _resolve,
}
