import contextlib
import importlib.util
import os
import re
import signal
import time

import commands
import httpx
import pytest
from runs import save_run, write_pictures
from served import write_shop

from san_jax.commands import search as search_command
from san_jax.commands import serve
from san_jax.errors import UserError
from san_jax.serving import server

START = re.compile(r"open (http://\S+)   \(Ctrl-C ends the server\)\n")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"), mode="baseline")


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


def given_for(**given):
    """The flags with --serve and their defaults."""
    names = ("query", "query_boxes", "as_one", "top", "output", "sheet", "rerank", "by_track", "forget", "boxes")
    names += ("threshold", "index", "host", "port", "batch_size", "workers", "flip", "margin", "min_score")
    names += ("min_height", "min_visible", "best")
    defaults = dict.fromkeys(names) | {"boxes_format": "auto", "gallery": ["shop"], "serve": True, "flip": False}
    return defaults | {"half": False, "distance": "euclidean", "checkpoint": "run"} | given


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"query": "a.png"}, "--query has no effect with --serve; leave it out: choose the picture on the page"),
        ({"query_boxes": "gt.txt"}, "--query_boxes has no effect with --serve; leave it out: draw boxes on the page"),
        ({"as_one": True}, "--as_one has no effect with --serve; leave it out: mark pictures as right on the page"),
        ({"top": 5}, "--top has no effect with --serve; leave it out: choose the number on the page"),
        ({"output": "a.csv"}, "--output has no effect with --serve; leave it out: save results from the page"),
        ({"sheet": "a.png"}, "--sheet has no effect with --serve; leave it out: save the contact sheet from the page"),
        ({"rerank": True}, "--rerank has no effect with --serve; leave it out: the page shows plain distances"),
        ({"by_track": True}, "--by_track has no effect with --serve; leave it out: the page finds single pictures"),
        ({"forget": "shop"}, "--forget has no effect with --serve; leave it out: give it without --serve"),
        ({"gallery": None}, "--gallery is missing; name what to search"),
        ({"gallery": ["shop", ""]}, "--gallery is missing; name what to search"),
        ({"gallery": ["a", "b"], "index": "i"}, "--index is of one gallery, but --gallery names 2; name one"),
        ({"gallery": ["a", "b"], "boxes": "gt.txt"}, "--boxes is of one gallery, but --gallery names 2; name one"),
        ({"gallery": ["a", "b", "./a"]}, "--gallery names a twice; name each gallery once"),
        ({"threshold": -1.0}, "--threshold is -1.0; give a distance of 0 or more"),
        ({"margin": 0.1}, "--margin is about boxes, and there are none; give --boxes, too"),
    ],
)
def test_flags_without_effect_are_errors_of_one_line(given, error):
    with pytest.raises(UserError, match=re.escape(error)):
        search_command.run(given_for(**given))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"host": "0.0.0.0"}, "--host is about the page of --serve; give --serve, too, or leave it out"),
        ({"port": 0}, "--port is about the page of --serve; give --serve, too, or leave it out"),
        ({"gallery": ["a", "b"]}, "--gallery is given 2 times; give it once, or --serve, too"),
    ],
)
def test_flags_of_the_page_have_no_effect_without_it(given, error):
    with pytest.raises(UserError, match=re.escape(error)):
        search_command.run(given_for(serve=False, query="a.png", **given))


@pytest.mark.parametrize("name", serve.NEEDED)
def test_missing_extra_is_an_error_of_one_line(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == name else find(asked))
    with pytest.raises(UserError, match=rf"needs {name}, which is not installed; pip install 'san_jax\[serve\]'"):
        serve.check_flags(given_for())


def test_search_without_the_page_does_not_import_its_libraries():
    code = "import sys; from san_jax.commands import search; print({'starlette', 'uvicorn'} & set(sys.modules))"
    running = commands.start_alone("-c", code)
    assert running.communicate()[0] == "set()\n"


@contextlib.contextmanager
def started(*arguments):
    """A server in a process of its own, the address that it prints, and a function that gives all that it said."""
    running = commands.start_alone("search.py", "--serve", "--port=0", "--workers=1", *arguments)
    said = []
    try:
        for line in running.stdout:
            said.append(line)
            if found := START.fullmatch(line):
                yield running, found[1], said
                break
        else:
            pytest.fail("".join(said))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_server_ends_with_one_line_whatever_its_visitors_do(number, name, workdir, shop, tmp_path):
    arguments = [f"--checkpoint={workdir}", f"--gallery={shop}", f"--index={tmp_path / 'index'}"]
    with started(*arguments) as (running, address, _):
        with httpx.stream("GET", f"{address}api/galleries"):  # a connection that stays open
            wait_until_embedded(address)
            begin = time.monotonic()
            running.send_signal(number)
            rest = running.stdout.read()
        assert time.monotonic() - begin < 10
        assert rest.splitlines()[-1] == f"stopped by {name}; start the same command again to go on"
        assert "Traceback" not in rest
        assert running.wait() == 128 + number


def wait_until_embedded(address, **options):
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        told = httpx.get(f"{address}api/galleries", **options).json()
        if all(gallery["state"] == "watching" for gallery in told["galleries"]):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


@pytest.mark.slow
def test_several_galleries_are_searched_at_an_address_with_a_token(workdir, shop, tmp_path):
    street = write_pictures(tmp_path / "street", ["a.png", "sub/b.png"])
    arguments = [f"--checkpoint={workdir}", f"--gallery={shop}", f"--gallery={street}", "--host=0.0.0.0"]
    with started(*arguments, "--threshold=7") as (_, address, _):
        found = re.fullmatch(r"http://[^/]+:(\d+)/\?token=([\w-]{40,})", address)
        assert found, address
        with httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=30) as client:
            assert client.get("/").status_code == 401
            assert client.get("/", params={"token": found[2]}).status_code == 200
            told = wait_until_embedded("http://127.0.0.1:" + found[1] + "/", cookies=dict(client.cookies))
            assert [gallery["searchable"] for gallery in told["galleries"]] == [9, 2]
            assert told["threshold"] == 7.0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--gallery={tmp}/nowhere"], "{tmp}/nowhere cannot be read (No such file or directory)"),
        (["--gallery={tmp}/empty"], "{tmp}/empty holds no pictures"),
        (["--gallery={tmp}/shop", "--index={tmp}/shop/red_0.png"], "--index is {tmp}/shop/red_0.png; name a folder"),
        (["--gallery={tmp}/shop", "--host=nowhere.invalid"], "--host is nowhere.invalid, which is no address"),
        (["--gallery=gs://bucket/shop"], "--gallery is gs://bucket/shop, but must be local"),
        (["--gallery={tmp}/shop", "--port=70000"], "--port=70000"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, error, workdir, shop, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    status, output, errors = commands.run("search.py", f"--checkpoint={workdir}", "--serve", "--port=0", *arguments)
    assert status == 1, output
    assert errors.startswith("error: ")
    assert error.format(tmp=tmp_path) in errors
    assert errors.count("\n") == 1


def test_taken_port_is_an_error_of_one_line(workdir, shop):
    with server.listen("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        arguments = [f"--checkpoint={workdir}", f"--gallery={shop}", f"--port={port}"]
        done = commands.run("search.py", "--serve", *arguments)
    assert done == (1, "", f"error: port {port} of 127.0.0.1 is taken; give another --port, or 0 for any\n")
