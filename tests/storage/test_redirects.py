"""Web servers that lead elsewhere: not into private networks, and without what the user's headers hold."""

import socket

import pytest
from web_server import WebServer

from tastemaker.errors import RemoteError
from tastemaker.storage.place import Place

pytestmark = pytest.mark.network


def headers(server):
    return {server.url: {"headers": {"X-Token": "word", "Authorization": "Bearer word"}}}


def secrets_sent(server):
    return {(request.headers["X-Token"], request.authorization) for request in server.requests}


class Leading(WebServer):
    """Sends every request but that for its own file to another address."""

    def __init__(self, folder, to=None):
        super().__init__(folder)
        self.to = to

    def answer_itself(self, method, path, headers, body):
        leads = self.to and path != "/a.bin"
        return (302, {"Location": self.to, "Content-Length": "0"}, b"") if leads else None


@pytest.fixture
def file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"data")
    return tmp_path


def test_a_server_may_lead_to_another_which_gets_no_header_of_the_user(file):
    with Leading(file) as other, Leading(file, f"{other.url}/a.bin") as first:
        assert Place.of(f"{first.url}/x", headers(first)).read() == b"data"
        assert secrets_sent(first) == {("word", "Bearer word")}
        assert secrets_sent(other) == {(None, None)}


def test_the_same_server_gets_them_again(file):
    with Leading(file) as server:
        server.to = "/a.bin"
        assert Place.of(f"{server.url}/x", headers(server)).read() == b"data"
        assert secrets_sent(server) == {("word", "Bearer word")}


@pytest.mark.parametrize(
    "host", ["localhost", "169.254.169.254", "[::1]", "10.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", "[2002:7f00:1::]"]
)
def test_a_server_does_not_lead_to_a_private_address(file, host):
    with Leading(file) as secret, Leading(file, f"http://{host}:{secret.url.rpartition(':')[2]}/a.bin") as first:
        with pytest.raises(RemoteError, match="a private address that you did not name"):
            Place.of(f"{first.url}/x").read()
        assert secret.requests == []


def test_a_name_that_the_user_gave_does_not_stand_for_the_address_of_a_clouds_credentials(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("169.254.169.254", 0))])
    with pytest.raises(RemoteError, match=r"metadata\.evil is 169\.254\.169\.254, a private address"):
        Place.of("http://metadata.evil/latest/meta-data/").read()


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(file, monkeypatch):
    """The name stands for a public address first, and for one of this machine when it is looked up again."""
    looked_up, connected, look_up, connect = [], [], socket.getaddrinfo, socket.create_connection

    def rebind(host, *args, **options):
        if host != "rebind.example":
            return look_up(host, *args, **options)
        looked_up.append(host)
        return [(socket.AF_INET, 1, 6, "", ("8.8.8.8" if len(looked_up) == 1 else "127.0.0.1", 80))]

    with Leading(file) as there, Leading(file, "http://rebind.example/a.bin") as first:

        def lead_to_a_server_of_the_test(address, *args, **options):
            connected.append(address[0])
            port = there.url.rpartition(":")[2]
            return connect(("127.0.0.1", port) if address[0] == "8.8.8.8" else address, *args, **options)

        monkeypatch.setattr("socket.getaddrinfo", rebind)
        monkeypatch.setattr("socket.create_connection", lead_to_a_server_of_the_test)
        assert Place.of(f"{first.url}/x").open_ranges().read_at(0, 9) == b"data"
        assert connected == ["127.0.0.1", "8.8.8.8"]
        assert looked_up == ["rebind.example"]
        assert [request.headers["Host"] for request in there.requests] == ["rebind.example"]
        first.to = "http://rebind.example:81/a.bin"
        with pytest.raises(RemoteError, match=r"rebind\.example is 127\.0\.0\.1, a private address"):
            Place.of(f"{first.url}/x").open_ranges().read_at(0, 9)
        assert len(there.requests) == 1


def test_an_open_connection_to_a_private_server_is_not_used_where_another_leads_to_it(file):
    with Leading(file) as secret, Leading(file) as first:
        private = secret.url.replace("127.0.0.1", "localhost")
        assert Place.of(f"{private}/a.bin").read() == b"data"
        before, first.to = len(secret.requests), f"{private}/a.bin"
        with pytest.raises(RemoteError, match="a private address that you did not name"):
            Place.of(f"{first.url}/x").read()
        assert len(secret.requests) == before


def test_a_proxy_is_asked_where_the_environment_names_one(file, monkeypatch):
    with Leading(file) as proxy, Leading(file) as direct:
        proxy.answer_itself = lambda *_: (200, {"Content-Length": "4"}, b"from")
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert Place.of("http://far.example/a.bin").read() == b"from"
        assert {request.path for request in proxy.requests} == {"http://far.example/a.bin"}
        assert Place.of(f"{direct.url}/a.bin").read() == b"data"


def test_servers_that_lead_to_each_other_end_with_one_error(file):
    with Leading(file) as server:
        server.to = f"{server.url}/again"
        with pytest.raises(RemoteError, match="lead to each other, 10 times"):
            Place.of(f"{server.url}/x").read()
        assert len(server.requests) == 10
