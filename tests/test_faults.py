"""The campaign of faults: its mutator, its judgements and its page; the campaign itself takes hours."""

import json
import random
import zipfile

import pytest

from benchmarks.faults import endpoints, inputs, kills, mutator, page, soak
from benchmarks.faults.jobs import Ended, difference

TEXT = "path,pid,camid\n" + "\n".join(f"{number}.png,{number},1" for number in range(30))


def test_same_seed_damages_a_file_in_the_same_way_and_never_leaves_it_as_it_was(tmp_path):
    ways, contents = set(), set()
    for seed in range(60):
        found = []
        for name in ("one.csv", "other.csv"):
            (tmp_path / name).write_text(TEXT)
            way = mutator.change(tmp_path / name, random.Random(seed))
            found.append((way, (tmp_path / name).read_bytes()))
        assert found[0] == found[1]
        assert found[0][1] != TEXT.encode()
        ways.add(found[0][0])
        contents.add(found[0][1])
    assert ways == {"cut", "flip", "swap", "repeat", "erase", "absurd", "reword", "empty"}
    assert len(contents) > 45


def test_damaged_entry_of_an_archive_has_a_right_checksum(tmp_path):
    for seed in range(10):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("a/data.pkl", bytes(range(100)))
            archive.writestr("a/data/0", bytes(100))
        mutator.change_entry(tmp_path / "a.pth", random.Random(seed))
        with zipfile.ZipFile(tmp_path / "a.pth") as archive:
            assert archive.testzip() is None
            assert (archive.read("a/data.pkl"), archive.read("a/data/0")) != (bytes(range(100)), bytes(100))


def test_requests_are_damaged_alike_by_one_seed_and_say_whether_they_are_whole():
    for name, request in endpoints.requests().items():
        good = request.head(len(request.body)) + request.body
        for way in endpoints.WAYS:
            if way in (endpoints.damaged_body, endpoints.wrong_length) and not request.body:
                continue
            sent = [way(request, random.Random(seed)) for seed in (0, 0, 1, 2, 3)]
            assert sent[0] == sent[1]
            assert any(bytes_ != good for bytes_, _ in sent), (name, way)
    request = endpoints.requests()["search"]
    for seed in range(20):
        sent, is_whole = endpoints.damaged_body(request, random.Random(seed))
        head, _, body = sent.partition(b"\r\n\r\n")
        assert is_whole
        assert f"Content-Length: {len(body)}".encode() in head
        sent, is_whole = endpoints.wrong_length(request, random.Random(seed))
        said = int(sent.partition(b"Content-Length: ")[2].split()[0])
        assert is_whole == (said <= len(request.body))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((200, b"{}"), "answered"),
        ((204, b""), "answered"),
        ((400, b'{"error": "a box is four numbers"}'), "refused"),
        ((404, b"there is nothing at this address\n"), "refused"),
        ((503, b'{"error": "try again"}'), "refused"),
        ((500, b"Internal Server Error"), "error of the server"),
        ((400, b'{"error": "two\\nlines"}'), "not one line"),
        ((400, b""), "not one line"),
        ((None, b""), "no answer"),
    ],
)
def test_answers_are_judged_by_status_and_line(answer, outcome, monkeypatch, tmp_path):
    server = endpoints.Server(tmp_path)
    server.port = 8000
    monkeypatch.setattr(server, "_answer", lambda sent, seconds: answer)
    assert server.ask(b"", is_whole=True)[0] == outcome
    if answer[0] is None:
        assert server.ask(b"", is_whole=False)[0] == "closed without an answer"


@pytest.mark.parametrize(
    ("digest", "message", "guarded", "outcome"),
    [
        ("right", "", True, "right"),
        ("", "a.png cannot be read; replace it", False, "refused"),
        ("other", "", False, "read as other content"),
        ("other", "", True, "wrong in silence"),
        ("", "two\nlines", True, "not one line"),
        ("", "Traceback (most recent call last): ...", False, "traceback"),
    ],
)
def test_silence_is_a_fault_only_where_checksums_could_have_spoken(digest, message, guarded, outcome):
    assert inputs.outcome_of(digest, message, "right", guarded=guarded) == outcome
    assert (outcome in inputs.OUTCOMES) != (outcome in inputs.FAULTS)


@pytest.mark.parametrize(
    ("status", "output", "complaint"),
    [
        (0, "all is well\n", ""),
        (1, "step 3\nerror: the disk is full; free some space\n", ""),
        (1, "error: one\nerror: two\n", "2 lines of errors"),
        (1, "nothing\n", "0 lines of errors"),
        (-6, "error: one\n", "exit status -6"),
        (1, "Traceback (most recent call last):\nerror: one\n", "traceback"),
    ],
)
def test_command_may_succeed_or_end_with_one_line_and_status_1(status, output, complaint):
    assert Ended(status, output).complaint == complaint


def test_contents_that_differ_are_named():
    assert difference({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == ""
    assert difference({"a": "1", "c": "3"}, {"a": "2", "b": "2"}) == "3 differ, such as a, b, c"


def test_job_that_failed_after_its_kills_is_a_fault_with_its_last_line():
    assert kills.complaint_of([Ended(0, "")]) == ""
    assert kills.complaint_of([Ended(0, ""), Ended(1, "error: no space\n")]) == "error: no space"
    assert kills.complaint_of_other(Ended(-9, "")).startswith("the other process still ran after")
    assert kills.complaint_of_other(Ended(1, "error: process 0 on host has ended\n")) == ""


def test_windows_of_a_long_training_have_medians_and_rates():
    samples = [
        {"time": 100.0 + 60 * minute, "memory_mb": 500.0 + minute % 2, "files": 9, "threads": 7, "disk_mb": 3.0,
         "step": 30 * minute}
        for minute in range(45)
    ]  # fmt: skip
    found = soak.windows_of(samples)
    assert [window["steps_per_second"] for window in found] == [0.5, 0.5]  # five minutes are left out
    assert [window["last_step"] for window in found] == [19 * 30, 39 * 30]
    assert found[0]["memory_mb"] == 500.5


def test_page_has_the_tables_of_the_parts_that_its_marks_name(tmp_path):
    mark, end = "<!-- kills, written by python -m benchmarks.faults.page -->", "<!-- up to here -->"
    job = {"kills": 5, "ended": 2, "unbroken_seconds": 7.0, "faults": [{}]}
    report = {"cpu": {"name": "CPU", "cores": 2}, "date": "2026-01-01", "seed": 3, "jobs": {"train": job}}
    (tmp_path / "kills.json").write_text(json.dumps(report))
    text = page.with_tables(f"before\n\n{mark}\nold\n{end}\nafter\n", tmp_path)
    assert text.startswith(f"before\n\n{mark}\n\nCPU, 2 cores, 2026-01-01, seed 3.\n\n| command | unbroken, s |")
    assert "| train | 7.0 | 5 | 2 | 1 |\n| all |  | 5 | 2 | 1 |" in text
    assert text.endswith(f"\n\n{end}\nafter\n")
    assert "old" not in text
