"""A Hugging Face hub on loopback: what reading needs of its protocol, and the ways in which it fails.

Like the real one it answers for large files with a redirect to another origin (the CDN), and for small files itself.
Repositories with folders and commits are in `hub_repos`. Clients have to be started with `HubServer.environment`, since
huggingface_hub reads HF_ENDPOINT when it is imported, or given the storage option ``endpoint``.
"""

import hashlib
import os

from hub_repos import Repo, answer_about_repo, refuse
from web_server import WebServer, part_of


class HubServer(WebServer):
    """A hub and its CDN, each on a port of its own, while the `with` block runs."""

    def __init__(self):
        super().__init__()
        self.cdn = _Cdn(self)
        self.small: dict[str, bytes] = {}
        self.served: dict[str, bytes] = {}  # by SHA-256
        self.repos: dict[str, Repo] = {}  # by "datasets/owner/name"
        self.page_size = 1000  # entries in one answer about a folder
        self.signature = 0  # of the CDN's addresses; others have run out

    def __exit__(self, *arguments):
        self.cdn.__exit__(*arguments)
        super().__exit__(*arguments)

    def add(self, model, body, served=None):
        """Offer `body` as the weights of `model`; `served` is what the CDN sends in its place."""
        repo = self.add_repo(model.id, {model.filename: body})
        repo.refs[model.revision] = repo.refs["main"]
        if served is not None:
            self.served[hashlib.sha256(body).hexdigest()] = served

    def add_repo(self, name, files=(), **kwargs):
        """Offer a repository, ``datasets/owner/name``, with a first commit; see `Repo`."""
        self.repos[name] = Repo(self, name, dict(files), **kwargs)
        return self.repos[name]

    def environment(self, home, **extra):
        """Return the environment of a client process whose home and caches are in `home`."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        return clean | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_ENDPOINT": self.url} | extra

    def answer_itself(self, method, path, headers, body):
        if answer := answer_about_repo(self, path, headers, body.decode()):
            return answer
        if path in self.small:
            return part_of(self.small[path], None)
        return refuse(404, "EntryNotFound", "Entry not found")


class _Cdn(WebServer):
    def __init__(self, hub):
        super().__init__()
        self.hub = hub

    def answer_itself(self, method, path, headers, body):
        path, _, signature = path.partition("?Signature=")
        if signature and int(signature) != self.hub.signature:
            return 403, {"Content-Length": "0"}, b""
        return part_of(self.hub.served[path.split("/")[1]], headers["Range"])
