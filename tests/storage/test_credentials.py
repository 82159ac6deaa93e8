"""What a user gives for one store is shown to no other, whichever command runs."""

import json

import pytest
from command import tastemaker
from remote_servers import _impatient, hub  # noqa: F401 - fixtures
from web_server import WebServer

from tastemaker.errors import ConfigurationError, UnreadableImageError
from tastemaker.explorer.service import Explorer
from tastemaker.storage import options_for
from tastemaker.storage.place import Place
from tastemaker.storage.stores import open_store

pytestmark = pytest.mark.network


class Guarded(WebServer):
    """Gives files to those who send its word."""

    def __init__(self, folder, word):
        super().__init__(folder)
        self.word = word

    @property
    def seen(self):
        return {request.authorization for request in self.requests}

    def answer_itself(self, method, path, headers, body):
        return None if headers["Authorization"] == self.word else (403, {"Content-Length": "0"}, b"")


@pytest.fixture
def servers(tmp_path, photographs):
    """Two web servers with a picture each, and the options for both."""
    for name, picture in (("one", "rocket.jpg"), ("two", "coffee.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / picture).write_bytes(photographs[picture])
    with Guarded(tmp_path / "one", "for one") as one, Guarded(tmp_path / "two", "for two") as two:
        yield one, two, {server.url: {"headers": {"Authorization": server.word}} for server in (one, two)}


def test_each_web_server_gets_its_own_headers_from_every_command(servers, tmp_path, model_dir):
    one, two, options = servers
    out, inputs, said = str(tmp_path / "out"), (f"{one.url}/rocket.jpg", f"{two.url}/coffee.png"), json.dumps(options)

    def ends_well(*arguments):
        done = tastemaker(*arguments, "--storage-options", said)
        assert done.returncode == 0, done.stderr

    ends_well("score", *inputs, "--output", out, "--model-dir", model_dir)
    ends_well("rescore", out, "--model-dir", model_dir)
    ends_well("select", out, "--top", "100%", "--to", tmp_path / "kept", "--as", "folder")
    ends_well("report", out, "--output", tmp_path / "report.html")
    explorer = Explorer([out], options)
    assert all(explorer.small_picture(row, 64) for row in (0, 1))
    explorer.close()
    assert {path.name for path in (tmp_path / "kept").rglob("*.*g")} == {"rocket.jpg", "coffee.png"}
    assert (one.seen, two.seen) == ({"for one"}, {"for two"})

    (rows,) = [path for path in (tmp_path / "out" / "rows").iterdir() if b"coffee" in path.read_bytes()]
    rows.rename(tmp_path / "one" / "rows.parquet")
    of_one = {one.url: options[one.url]}
    explorer = Explorer([f"{one.url}/rows.parquet"], of_one, [two.url])
    with pytest.raises(UnreadableImageError, match="status 403"):
        explorer.small_picture(0, 64)
    explorer.close()
    assert (one.seen, two.seen) == ({"for one"}, {"for two", None})


@pytest.mark.parametrize("kind", ["headers", "https"])
def test_headers_that_name_no_server_are_refused_before_anything_is_sent(servers, tmp_path, kind):
    one, two, _ = servers
    headers = {"headers": {"Authorization": "word"}}
    said = json.dumps(headers if kind == "headers" else {"https": headers})
    done = tastemaker("score", f"{one.url}/rocket.jpg", "--output", tmp_path / "out", "--storage-options", said)
    assert done.returncode == 2
    assert f'{{"{one.url}": {{"headers"' in done.stderr  # what to write instead
    assert one.requests == two.requests == []


def test_the_longest_url_counts_and_a_host_is_no_beginning_of_another():
    options = {"https://host": {"headers": {"a": "1"}}, "https://host:443/in/": {"headers": {"a": "2"}}, "s3": {}}
    for url, header in {"https://host/x": "1", "https://HOST/in/x": "2", "https://me:word@host/inn": "1"}.items():
        assert options_for(url, options)["headers"] == {"a": header}
    for url in ("https://host.evil/in/x", "http://host/x", "https://host:8443/x", "https://host@evil/x", "hf://a/b"):
        assert options_for(url, options) == {}
    with pytest.raises(ConfigurationError, match="only https://host is a store"):
        options_for("s3://b", {"https://host": {}, "key": "k"})


def test_the_token_of_the_hub_goes_to_no_other_hub(hub, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", "hf_word")
    hub.add_repo("datasets/tester/a").commit({"a.txt": b"a"})
    for elsewhere, token, sent in ((False, None, "Bearer hf_word"), (True, None, None), (True, "word", "Bearer word")):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example" if elsewhere else hub.url)
        before, options = len(hub.requests), {"endpoint": hub.url} | ({"token": token} if token else {})
        assert Place.of("hf://datasets/tester/a/a.txt", {"hf": options}).read() == b"a"
        assert {request.authorization for request in hub.requests[before:]} == {sent}
    with pytest.raises(ConfigurationError, match=r'\{"hf": \{"token"'):
        Place.of("hf://datasets/tester/a/a.txt", {"token": "hf_word"})


def test_the_key_of_one_azure_account_is_not_used_for_another():
    key = {"connection_string": "AccountName=mine;AccountKey=c2VjcmV0;BlobEndpoint=https://mine.blob.core.windows.net"}
    open_store("abfss://box@mine.dfs.core.windows.net/a", key)
    with pytest.raises(ConfigurationError, match="for the account mine, not for theirs"):
        open_store("abfss://box@theirs.dfs.core.windows.net/a", key)
