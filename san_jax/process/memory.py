"""How much memory this process may still use."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that can be allocated without swapping, within the limits of the process's control groups (containers)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    of_system = int(fields["MemAvailable"].split()[0]) * 1024
    return max(0, min([of_system, *(left for group in _groups() if (left := _left_in(group)) is not None)]))


def _groups() -> list[Path]:
    """The process's control group (version 2) and the groups around it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    path = CGROUPS / own
    return [path, *(parent for parent in path.parents if parent.is_relative_to(CGROUPS))]


def _left_in(group: Path) -> int | None:
    """What a group's limit leaves, counting files that the system can drop as free; None if it has no limit."""
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or the limit "max"
        return None
    return limit - used + int(kept.get("inactive_file", 0))
