import pytest
from runs import save_run
from served import OWN, Served, ask, person, png, write_shop
from starlette.testclient import TestClient

from san_jax import model as models
from san_jax.serving import guard

TOKEN = "a-token"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    model = models.load(save_run(folder / "run", mode="baseline"))
    return Served(model, folder, write_shop(folder / "shop")).look()


@pytest.fixture
def client(built):
    return built.client()


@pytest.fixture
def guarded(built):
    """A client of the same application at another address, which asks for a token."""
    inner = built.application._app
    application = guard.Guard(inner, host="192.168.1.5", token=TOKEN)
    return TestClient(application, base_url="http://192.168.1.5:8000")


def test_every_answer_has_the_headers_of_security(client):
    for path in ("/", "/page.js", "/api/galleries", "/api/pictures/77", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:9999", "[::1]:8000"])
def test_own_names_are_served_at_any_port(host, client):
    assert client.get("/api/galleries", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "192.168.1.5:8000", "", "[::1", "a b"])
def test_other_names_are_refused(host, client):
    """A page of another site whose name server points to 127.0.0.1 sends its own name."""
    answer = client.get("/api/galleries", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json() == {"error": "this address is not one of this server's; open the one that it has printed"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": OWN, "Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/api/queries", "/api/search", "/api/exports/csv", "/api/exports/sheet"])
def test_requests_that_change_something_must_come_from_the_own_page(path, headers, client):
    answer = client.post(path, content=b"{}", headers=headers)
    assert answer.status_code == 403
    assert "another site's page" in answer.json()["error"]


def test_own_page_and_programs_may_ask(client):
    for headers in ({}, {"Origin": OWN}, {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}):
        ask(client, png(person("red")), headers=headers)


def test_pictures_cannot_be_put_into_pages_of_other_sites(client):
    assert client.get("/api/pictures/1", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/api/pictures/1", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "links to the page work"


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/galleries", "/api/pictures/1", "/?token=wrong", "/?token="])
def test_without_the_token_nothing_is_answered(path, guarded):
    answer = guarded.get(path)
    assert answer.status_code == 401
    assert "open the whole address that the server has printed, with its token" in answer.text
    assert "set-cookie" not in answer.headers


def test_token_in_the_address_gives_a_cookie_for_all_that_follows(guarded):
    answer = guarded.get("/", params={"token": TOKEN})
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
    value = cookie.partition(";")[0]
    assert guarded.get("/api/galleries", headers={"Cookie": value}).status_code == 200
    assert guarded.get("/", headers={"Cookie": f"of@another=program[1]; {value}"}).status_code == 200
    assert guarded.post("/api/search", headers={"Cookie": value}, json={}).status_code == 400


@pytest.mark.parametrize("cookie", ["san_jax_8000=wrong", "san_jax_8000=", "other=a-token", "=;;=", "san_jax_8000=ä"])
def test_other_cookies_are_no_token(cookie, guarded):
    assert guarded.get("/api/galleries", headers={"Cookie": cookie.encode()}).status_code == 401


def test_token_counts_only_in_the_address_of_the_page(guarded):
    assert guarded.get("/api/galleries", params={"token": TOKEN}).status_code == 401
    assert guarded.get("/", params={"token": TOKEN}, headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *(("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)),
        *(("::", False), ("192.168.1.5", False), ("shop.example", False)),
    ],
)
def test_addresses_of_this_machine_alone_need_no_token(host, here):
    assert guard.is_here(host) is here


def test_a_request_that_takes_too_long_is_ended(built):
    async def slow(scope, receive, send):
        while True:
            await receive()

    client = TestClient(guard.Guard(slow, host="127.0.0.1", token=None, seconds=0.05), base_url=OWN)
    answer = client.get("/api/galleries")
    assert (answer.status_code, answer.json()["error"]) == (408, "this took more than 0.05 seconds; try again")
