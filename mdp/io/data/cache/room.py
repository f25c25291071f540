"""How much memory this process may still take: what the machine has left, and its control groups."""

from collections.abc import Iterator
from pathlib import Path


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that are free or can be made free without swapping; None where the system does not say.

    The least of what the machine has left and what the limits of the control groups (v1 and v2) leave, those of the
    groups around them included.  Files that the system keeps in memory count as free.
    """
    found = [*_of_machine(root), *_of_groups(root)]
    return max(0, min(found)) if found else None


def _of_machine(root: Path) -> Iterator[int]:
    for name, value in _table(root / "proc/meminfo"):
        if name == "MemAvailable:":
            yield 1024 * value


def _of_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = base / group.lstrip("/")  # in a container this may be a path of the machine's that is not there
        for folder in (own, *own.parents):
            if folder == base.parent:
                break
            yield from _of_group(folder, *names)


def _of_group(folder: Path, limit: str, usage: str, cached: str) -> Iterator[int]:
    """What the limit of one group leaves, if it has one."""
    try:
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # no such group, or `max`
        return
    yield most - used + dict(_table(folder / "memory.stat")).get(cached, 0)


def _table(path: Path) -> Iterator[tuple[str, int]]:
    """Names and numbers of a file that has one of each a line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, *values = line.split()
        if values and values[0].isdigit():
            yield name, int(values[0])
