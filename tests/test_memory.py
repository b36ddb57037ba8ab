from pathlib import Path

import pytest

from san_jax.process import memory


def test_available_memory_is_within_that_of_the_machine():
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < memory.available() <= 1024 * int(total.split()[1])


@pytest.mark.parametrize(("limit", "left"), [("1000", 700), ("max", None), ("100", 0)])
def test_limit_of_a_control_group_counts_and_droppable_files_are_free(limit, left, monkeypatch, tmp_path):
    group = tmp_path / "job"
    group.mkdir()
    for name, text in (("max", limit), ("current", "500"), ("stat", "anon 200\ninactive_file 200")):
        (group / f"memory.{name}").write_text(f"{text}\n")
    unlimited = memory.available()
    monkeypatch.setattr(memory, "_groups", lambda: [group, tmp_path])
    assert memory.available() == left if left is not None else memory.available() > unlimited / 2


def test_own_control_group_is_found_inside_the_groups_around_it():
    own, *around = memory._groups()
    assert own.is_relative_to(memory.CGROUPS)
    assert around == [parent for parent in own.parents if parent.is_relative_to(memory.CGROUPS)]
