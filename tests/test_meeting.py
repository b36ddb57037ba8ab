"""Processes that meet, as threads of this one; a command that meets no others, in processes of their own."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from san_jax.errors import UserError
from san_jax.process import meeting
from san_jax.process.meeting import Place


def places(count, *, port=None, host="localhost"):
    """The places of the processes of a run."""
    if port is None:
        with socket.create_server(("localhost", 0)) as free:
            port = free.getsockname()[1]
    return [Place(host, port, count, index, f"JAX_COORDINATOR_ADDRESS={host}:{port}") for index in range(count)]


def outcomes(chosen, seconds=20.0):
    """For each place, the address that `meet` gives, or the line that it ends with."""

    def outcome(place):
        try:
            return meeting.meet(place, seconds=seconds)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(chosen)) as processes:
        return list(processes.map(outcome, chosen))


def test_processes_meet_in_any_order_and_learn_by_which_address_they_reach_each_other():
    assert outcomes(places(5)[::-1]) == ["127.0.0.1"] * 5 or outcomes(places(5)) == ["::1"] * 5


def test_port_is_free_for_jax_as_soon_as_all_have_come():
    first, second = places(2)
    assert len(outcomes([first, second])) == 2
    with socket.create_server(("", first.port)):
        pass


def test_process_that_never_comes_is_named_at_all_others():
    first, _, third, _ = places(4)
    line = f"processes 1, 3 of 4 did not come to localhost:{first.port} within 0.5 s; start all 4"
    assert outcomes([first, third], seconds=0.5) == [line, line]


def test_two_processes_with_one_number_are_named_and_end_all():
    first, second, _ = places(3)
    found = outcomes([first, second, second])
    assert len(set(found)) == 1
    who = rf"pid {os.getpid()} on {re.escape(socket.gethostname())}"
    expected = f"two processes have number 1, {who} and {who}; number them from 0 to 2, as by JAX_PROCESS_ID"
    assert re.fullmatch(expected, found[0])


def test_process_that_went_while_waiting_may_be_started_again():
    first, second, third = places(3)
    with ThreadPoolExecutor(2) as processes:
        waiting = processes.submit(outcomes, [first])
        gone = meeting._found(second, deadline=time.monotonic() + 20, seconds=20.0)
        gone.close()
        again = outcomes([second, third])
        assert [*waiting.result(), *again] == [again[0]] * 3
        assert "." in again[0] or ":" in again[0]
        assert " " not in again[0]


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        ({"command": ["--workdir=other"]}, "was started with --workdir=other, process 0 at .* with --workdir=run; "),
        ({"command": []}, "was started with 0, process 0 at .* with 1 arguments; start the same command on all hosts"),
        ({"count": 3}, "is one of 3, process 0 at .* one of 2; give all the same number, or another run another port"),
    ],
)
def test_process_of_another_run_is_sent_away_and_the_run_goes_on(theirs, line, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--workdir=run"])
    first, second = places(2)
    who = {"index": 1, "count": 2, "command": ["--workdir=run"], "host": "other", "pid": 7} | theirs
    with ThreadPoolExecutor(1) as processes:
        waiting = processes.submit(outcomes, [first])
        stranger = connected(first)
        stranger.say(**who)
        assert stranger.hear() == {"san_jax": 1}
        assert re.match(f"process 1 on other {line}", stranger.hear()["problem"])
        [address] = outcomes([second])
        assert waiting.result() == [address]


def connected(place):
    """A connection to the first process, which may not listen yet."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return meeting.Link(socket.create_connection((place.host, place.port), timeout=20))


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"[1]\n", b'{"san_jax": 1}\n', b"", b"[" * 100_000 + b"\n"],
    ids=["http", "bytes", "list", "nobody", "nothing", "nested"],
)
def test_run_goes_on_when_something_else_connects(words, monkeypatch):
    monkeypatch.setattr(meeting, "HELLO", 0.2)
    first, second = places(2)
    with ThreadPoolExecutor(1) as processes:
        waiting = processes.submit(outcomes, [first])
        stranger = connected(first)
        stranger.connection.sendall(words)
        found = outcomes([second])
        assert waiting.result() == found
        assert " " not in found[0]


def test_process_0_whose_port_is_taken_says_so_at_once():
    with socket.create_server(("localhost", 0)) as other:
        [first] = places(1, port=other.getsockname()[1])
        [line] = outcomes([first])
    assert re.fullmatch(
        rf"JAX_COORDINATOR_ADDRESS=localhost:{first.port}: process 0 cannot listen on port {first.port} of \S+, where "
        "another program or run does; give all processes of this run another port",
        line,
    )


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"])
def test_another_program_on_the_port_is_told_from_process_0(answer):
    with socket.create_server(("localhost", 0)) as other:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = other.accept()
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=serve, daemon=True).start()
        _, second = places(2, port=other.getsockname()[1])
        [line] = outcomes([second], seconds=0.5)
        other.shutdown(socket.SHUT_RDWR)
    assert "process 1 on" in line
    assert "(another program or run listens there); give the address of its host, and start it too" in line


@pytest.mark.parametrize(
    ("host", "cause"),
    [("localhost", "nobody listens on that port"), ("nowhere.invalid", "this name cannot be resolved: ")],
)
def test_missing_process_0_is_reported_with_its_cause_in_bounded_time(host, cause):
    _, second = places(2, host=host)
    [line] = outcomes([second], seconds=0.5)
    assert line.startswith(f"JAX_COORDINATOR_ADDRESS={second.address}: process 1 on {socket.gethostname()} has not ")
    assert f"found process 0 at {second.address} within 0.5 s ({cause}" in line


def test_process_0_tells_that_the_address_is_not_its_own():
    first, _ = places(2, host="nowhere.invalid")
    [line] = outcomes([first], seconds=0.5)
    assert f"process 0 runs on {socket.gethostname()}, but does not find itself at nowhere.invalid:" in line


def test_process_0_that_ends_while_others_wait_is_reported_to_them():
    first, second = places(2)
    with socket.create_server(("localhost", first.port)) as server, ThreadPoolExecutor(1) as processes:
        waiting = processes.submit(outcomes, [second])
        link = meeting.Link(server.accept()[0])
        assert link.hear()["index"] == 1
        link.say()
        link.connection.shutdown(socket.SHUT_RDWR)
        line = f"process 0 at localhost:{first.port} ended before all processes had come; start all of them again"
        assert waiting.result() == [line]


def test_waiting_process_tells_for_whom(monkeypatch, capsys):
    monkeypatch.setattr(meeting, "NOTE", 0.1)
    first, second, _ = places(3)
    outcomes([first, second], seconds=1.0)
    assert capsys.readouterr().err == f"process 0 waits for process 2 of 3 at localhost:{first.port} ...\n"
    outcomes([second], seconds=1.0)
    expected = f"process 1 waits for process 0 at localhost:{first.port} (nobody listens on that port) ...\n"
    assert capsys.readouterr().err == expected


def test_messages_are_lines_of_json():
    one, other = socket.socketpair()
    with one, other:
        meeting.Link(one).say(problem="näme\n")
        line = other.recv(1000)
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"san_jax": 1, "problem": "näme\n"}


def test_process_that_ends_without_leaving_is_named_at_all_others():
    """Three processes of their own; the last one is killed, the others say so and end."""
    [first, *_] = places(3)
    code = (
        "import sys, time; from san_jax.process import meeting; from san_jax.process.meeting import Place;"
        f"place = Place('localhost', {first.port}, 3, int(sys.argv.pop()), 'test');"
        "meeting.meet(place, seconds=20.0, ended=lambda name: (print(name, flush=True), sys.stdout.flush()));"
        "print('met', flush=True); time.sleep(3)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(index)], stdout=subprocess.PIPE, text=True)
        for index in range(3)
    ]
    assert [process.stdout.readline() for process in started] == ["met\n"] * 3
    started[2].kill()
    ended = f"process 2 on {socket.gethostname()}\n"
    assert [process.stdout.readline() for process in started[:2]] == [ended, ended]
    for process in started:
        process.communicate()


def test_processes_that_leave_are_not_missed():
    [first, *_] = places(2)
    code = (
        "import sys, time; from san_jax.process import meeting; from san_jax.process.meeting import Place;"
        f"index = int(sys.argv.pop()); place = Place('localhost', {first.port}, 2, index, 'test');"
        "meeting.meet(place, seconds=20.0, ended=print); time.sleep(0.3); meeting.leave(); time.sleep(index)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(index)], stdout=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    assert [process.communicate()[0] for process in started] == ["", ""]


def test_hosts_may_have_their_data_in_folders_of_their_own():
    one = meeting.arguments(["train.py", "--config=a.py", "--config.data.data_dir=/one", "--workdir=/run"])
    assert one == meeting.arguments(["train.py", "--config=a.py", "--config.data.data_dir=/other", "--workdir=/run"])
    assert one != meeting.arguments(["train.py", "--config=a.py", "--config.data.data_dir=/one", "--workdir=/other"])
