import contextlib
import re
import socket
import threading
import time

import httpx
import pytest
from runs import save_run
from served import Served, ask, get, person, png, running, write_shop

from san_jax import model as models
from san_jax.errors import UserError
from san_jax.serving import guard, server

PNG = png(person("red", size=(200, 400)))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    model = models.load(save_run(folder / "run", mode="baseline"))
    return Served(model, folder, write_shop(folder / "shop"), seconds=1.0).look()


@pytest.fixture
def address(built, monkeypatch):
    monkeypatch.setattr(server, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    with running(built) as address:
        yield address


def connected(address, content):
    """A connection to which some of a request has been sent."""
    opened = socket.create_connection(address, timeout=20)
    opened.sendall(content)
    return opened


def head(address, *, length=None, path="/api/queries"):
    size = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{address[1]}\r\n{size}\r\n\r\n".encode()


def received(opened):
    """All that is received until the other end closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := opened.recv(65536):
            parts.append(part)
    return b"".join(parts)


def still_answers(address):
    assert get(address, "/api/galleries").status_code == 200


def test_page_and_search_are_served(address):
    with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=20) as client:
        assert "<title>Find a person</title>" in client.get("/").text
        found = client.post("/api/search", json={"queries": [ask(client, PNG)], "top": 3}).json()["found"]
        assert {hit["name"][:3] for hit in found} == {"red"}
        assert client.get(f"/api/pictures/{found[0]['id']}").headers["content-type"] == "image/jpeg"


def test_answers_do_not_wait_for_the_acknowledgement_of_their_heads():
    """Of sockets that are not made for TCP, asyncio leaves Nagle's algorithm on, and each answer takes 40 ms."""
    with server.listen("127.0.0.1", 0) as opened:
        assert opened.proto == socket.IPPROTO_TCP


def test_half_sent_upload_is_ended_and_disturbs_nobody(address):
    with connected(address, head(address, length=len(PNG)) + PNG[:500]) as opened:
        still_answers(address)
        answer = received(opened)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"this took more than 1 seconds; try again" in answer


def test_aborted_uploads_disturb_nobody(address, built):
    before = built.queries._num_bytes()
    for size in (0, 100, len(PNG) - 1):
        connected(address, head(address, length=len(PNG)) + PNG[:size]).close()
    still_answers(address)
    time.sleep(0.2)
    assert built.queries._num_bytes() == before
    with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=20) as client:
        ask(client, PNG)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHo", b"POST /api/search HTTP/1.1\r\n"])
def test_connection_without_a_whole_head_is_cut(sent, address):
    with connected(address, sent) as opened:
        begin = time.monotonic()
        assert received(opened) == b""
        assert 0.2 < time.monotonic() - begin < 10


def test_head_that_comes_letter_by_letter_is_cut(address):
    begin = time.monotonic()
    with connected(address, b"GET / HTTP/1.1\r\nX: ") as opened, contextlib.suppress(ConnectionError):
        while time.monotonic() - begin < 10:
            opened.sendall(b"x")
            time.sleep(0.02)
    assert time.monotonic() - begin < 10


def test_upload_that_is_too_large_is_refused_before_it_is_sent(address):
    with connected(address, head(address, length=10**12)) as opened:
        answer = received(opened)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"this has more than 20 MB; give a smaller one" in answer


def test_upload_without_a_length_is_refused_while_it_is_read(address):
    chunk = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    with connected(address, head(address)) as opened, contextlib.suppress(ConnectionError):
        for _ in range(30):
            opened.sendall(chunk)
    still_answers(address)


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_request_is_refused(sent, address, capsys):
    with connected(address, sent) as opened:
        assert received(opened).startswith(b"HTTP/1.1 4")
    still_answers(address)
    assert capsys.readouterr().err == ""


def test_visitor_who_takes_nothing_of_an_answer_is_cut(built, monkeypatch):
    async def large(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(50_000_000)})

    monkeypatch.setattr(server, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(server, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(built, "application", large)
    with running(built) as address, connected(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as opened:
        time.sleep(2)
        assert len(received(opened)) < 50_000_000


def test_many_visitors_at_a_time_are_answered(address):
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(get(address, "/api/galleries").status_code)) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == 30 * [200]


def test_taken_port_is_an_error_of_one_line():
    with server.listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} of 127\.0\.0\.1 is taken; give another --port"):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("nowhere.invalid", r"--host is nowhere\.invalid, which is no address \("),
        ("192.0.2.1", r"cannot serve at 192\.0\.2\.1, port 0 \(.*\); give other ones"),
    ],
)
def test_address_of_another_machine_is_an_error_of_one_line(host, error):
    with pytest.raises(UserError, match=error):
        server.listen(host, 0)


@pytest.mark.parametrize(
    ("host", "token", "shown"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:{port}/"),
        ("localhost", None, "http://localhost:{port}/"),
        ("::1", None, "http://[::1]:{port}/"),
    ],
)
def test_address_that_visitors_open_has_the_port_and_the_token(host, token, shown):
    with server.listen(host, 0) as opened:
        assert server.address_of(opened, host, token) == shown.format(port=opened.getsockname()[1])


def test_address_for_all_of_a_network_is_one_that_other_machines_can_open(monkeypatch):
    with server.listen("0.0.0.0", 0) as opened:
        found = re.fullmatch(r"http://([^/]+):(\d+)/\?token=abc", server.address_of(opened, "0.0.0.0", "abc"))
        assert int(found[2]) == opened.getsockname()[1]
        assert found[1] != "0.0.0.0"
        assert guard.Guard(print, host="0.0.0.0", token="abc")._is_ours(found[1])
        monkeypatch.setattr(socket.socket, "connect", fails)  # as on a machine without a network
        assert server.address_of(opened, "0.0.0.0", None).startswith(f"http://{socket.gethostname()}:")


def fails(*_):
    raise OSError


def test_tokens_are_long_and_differ():
    first, second = server.new_token("0.0.0.0"), server.new_token("0.0.0.0")
    assert len(first) > 40
    assert first != second
    assert server.new_token("127.0.0.1") is None
