"""Making room for what a run keeps (`run.cache`): how much it will be, whether that fits, and who shares it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mdp.io.data.cache.form import first_classes, form_of
from mdp.io.data.cache.kept import Kept, Places
from mdp.io.data.cache.room import free_memory
from mdp.io.data.cache.sizes import pixel_bytes, pixels_of
from mdp.io.data.handing_over import memory_files
from mdp.io.data.pool import Pool
from mdp.io.data.selection import Plan
from mdp.io.errors import RecipeError, ResourceError

_SAMPLED = 256  # photos by which it is estimated whether it is worth to look at all
_MARGIN = 1.25  # that such an estimate may be off by


class Together(Protocol):
    """This process among those of its run, as `mdp.io.processes.world.World` has it."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def broadcast_main(self, say: Callable[[], str]) -> str: ...

    def gather_objects(self, value: Any) -> list[Any]: ...


def with_cache(plan: Plan, device: torch.device, world: Together) -> Plan:
    """The plan with room for what is to be kept, and a line that says how much that is.

    Raises ResourceError where it does not fit or the system has no memory that processes share, RecipeError where the
    data are not for a cache on the device.
    """
    wanted = plan.recipe.run.cache
    if wanted == "off":
        return plan
    if not memory_files():
        raise ResourceError(f"run.cache: {wanted} needs memory files, which this system does not have; take off")
    near, free = wanted == "device", _free(device)
    room = _room(plan, device, free, world)
    scored = room.scored
    parts = [(room.there, free[-1], f"on {device}"), (room.here, free[0], "of memory")]
    _refuse_short(plan, parts, world)
    kept = Kept(room.own) if near else _shared(room.own, world)  # what is on one device is not on another
    kept_scored = _shared(scored, world) if scored else None
    line = (
        f"cache: the decoded photos{' and label maps' * plan.labelled} of {len(plan.pool.samples):,} images"
        f"{', and those that are scored,' if scored and scored.bytes else ''} take up to "
        f"{' and '.join(f'{size(count)} {what}' for count, _, what in parts if count)}, filled as they are first read; "
        "files that change meanwhile are not read again"
    )
    unknown = int((room.pixels == 0).sum())
    missing = [f"note: {unknown:,} photos have no header that can be read; they are not kept"] if unknown else []
    return replace(
        plan,
        pool=plan.pool._replace(kept=kept),
        validation=plan.validation and plan.validation._replace(kept=kept_scored),
        lines=[*plan.lines, line, *missing],
    )


def cache_bytes(plan: Plan, device: torch.device, world: Together) -> dict[str, int]:
    """How many bytes `run.cache` will take, by where they are: `memory` of this machine, or the `device`.

    Raises RecipeError where the data are not for a cache on the device.
    """
    room = _room(plan, device, [None], world)
    return {name: count for name, count in (("memory", room.here), ("device", room.there)) if count}


class _Room(NamedTuple):
    """What a run is to keep."""

    pixels: NDArray[np.int64]  # of each sample's photo; 0 where they are not known
    own: Places  # of what this process, or the machine, keeps in memory of the pool
    scored: Places | None  # of the images that are scored, in memory
    here: int  # bytes of memory
    there: int  # bytes on the device


def _room(plan: Plan, device: torch.device, free: list[int | None], world: Together) -> _Room:
    near = plan.recipe.run.cache == "device"
    if near:
        _refuse_device(plan, device)
    pixels = _pixels(plan.pool, range(len(plan.pool.samples)), free[-1] if near else free[0], world)
    own = _places(plan.pool, pixels, photos=not near, labels=plan.labelled and (plan.draws_by_labels or not near))
    scored = None
    if plan.validation and plan.validation.samples:
        looked = _pixels(plan.validation, plan.scored, free[0], world)
        scored = _places(plan.validation, looked, photos=True, labels=True)
    there = _places(plan.pool, pixels, photos=near, labels=near and plan.labelled).bytes
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world.size)) if near else 1
    here = processes * own.bytes + (scored.bytes if scored else 0)
    if device.type == "cpu":  # where each process of the machine has a device of its own in the same memory
        there, here = 0, here + processes * there
    return _Room(pixels, own, scored, here, there)


def _refuse_short(plan: Plan, parts: Sequence[tuple[int, int | None, str]], world: Together) -> None:
    """Raises ResourceError, on all processes alike, where bytes are more than are free somewhere."""
    wanted = plan.recipe.run.cache
    problem = "; ".join(filter(None, (_short(*part) for part in parts)))
    problems = [text for text in world.gather_objects(problem) if text]
    if problems:
        raise ResourceError(
            f"run.cache: {wanted}: decoded, the photos and label maps of {len(plan.pool.samples):,} images take "
            f"{problems[0]}; take {'memory or ' * (wanted == 'device')}off, or fewer images"
        )


def _refuse_device(plan: Plan, device: torch.device) -> None:
    """Raises RecipeError where crops cannot be cut on the device as they are on a CPU."""
    many = [name for name, dataset in plan.pool.datasets.items() if dataset.photos.channels]
    reason = ""
    if device.type not in ("cuda", "cpu"):
        reason = f"nothing is known of {device.type}"
    elif many:
        reason = f"it keeps RGB of 8 bits, and {many[0]} has declared channels"
    elif plan.pool.transform is not None:
        reason = "the transform of a Python program changes whole photos, one by one, on a CPU"
    if reason:
        raise RecipeError(f"run.cache: device: {reason}; take memory")


def _free(device: torch.device) -> list[int | None]:
    """Bytes that are free: in memory, and on the device."""
    if device.type == "cuda":
        return [free_memory(), torch.cuda.mem_get_info(device)[0]]
    return [free_memory()]


def _pixels(pool: Pool, indices: Sequence[int] | None, free: int | None, world: Together) -> NDArray[np.int64]:
    """The pixels of each sample of a pool, 0 for those that are not read; the main process looks, the others hear it.

    Where a few of many tell that they cannot fit into what is free, no more are looked at.
    """
    chosen = list(range(len(pool.samples)) if indices is None else indices)

    def look() -> str:
        found = np.zeros(len(pool.samples), dtype=np.int64)
        if len(chosen) > 8 * _SAMPLED and free is not None:
            some = [chosen[place * len(chosen) // _SAMPLED] for place in range(_SAMPLED)]
            each = float(pixels_of(pool, some).mean())
            if 3 * each * len(chosen) > _MARGIN * free:
                found[chosen] = int(each)
                return found.tobytes().hex()
        found[chosen] = pixels_of(pool, chosen)
        return found.tobytes().hex()

    return np.frombuffer(bytes.fromhex(world.broadcast_main(look)), dtype=np.int64)


def _places(pool: Pool, pixels: NDArray[np.int64], photos: bool, labels: bool) -> Places:
    """Room for the photos, or the labels, or both, of a pool."""
    form = form_of(pool.union)
    return Places(
        pixels * pixel_bytes(pool) * photos,
        pixels * form.itemsize * labels,
        first_classes(pool.union, [sample.dataset for sample in pool.samples]),
        form,
    )


def _short(needed: int, free: int | None, what: str) -> str:
    """Words for what does not fit."""
    if free is None or needed <= free:
        return ""
    return f"{size(needed)} {what}, of which {size(free)} are free"


def _shared(places: Places, world: Together) -> Kept:
    """Room that all processes of a machine share: the first of them makes it, the others open it."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    made = Kept(places) if first else None
    paths = world.gather_objects(made.path if made else "")
    path = next(path for path in reversed(paths[: world.rank + 1]) if path)
    try:
        return made or Kept(places, path)
    except OSError as error:
        raise ResourceError(
            f"run.cache: the memory of process 0 cannot be opened ({error.strerror}); take off"
        ) from error


def size(count: int) -> str:
    """Bytes for people.

    >>> size(1_500_000_000), size(40_000_000), size(10)
    ('1.5 GB', '40 MB', '1 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
