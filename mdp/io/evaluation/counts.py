"""Counting what a protocol counts over a split, at the labels' resolution; scores come after.

Whatever makes the predictions, they are counted one image after the other; who looks at them besides is a list.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mdp.core.protocols import Counted, Counts, EvaluationProtocol, Features, Pair, collect, joined, segmentation
from mdp.io.data.crops import WholeItem, WholeItems
from mdp.io.data.loader import load
from mdp.io.data.pool import Key, Pool
from mdp.io.data.workers import Watch
from mdp.io.errors import MdpError, Preempted
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.settings import EvalSettings


class Observer(Protocol):
    """Looks at every image while a split is scored."""

    def observe_(self, counted: Counted) -> None:
        """Takes an image of the split in."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a split is gone through: by whom, and what is done about files that cannot be read."""

    workers: int
    world: World = ALONE  # images are dealt out to all processes
    stop: Stop | None = None  # set: the rest is left
    skipped: Callable[[MdpError], None] | None = None  # hears of what is left out; None: the first of them is raised
    tell: Callable[[int, int], None] | None = None  # hears (images done, images in all)


def images_of(pool: Pool, settings: EvalSettings) -> int:
    """How many images of the pool are scored."""
    return min(len(pool.samples), settings.images or len(pool.samples))


def images_in(pool: Pool, count: int, reading: Reading) -> Generator[WholeItem, None, None]:
    """The first `count` images of the pool that are this process's, one after the other."""
    world = reading.world
    keys: Iterator[list[Key]] = iter([[(0, index)] for index in range(world.rank, count, world.size)])
    watch = Watch(name=lambda key: pool.name(key[1]), stop=lambda: reading.stop)
    try:
        with closing(load(WholeItems(pool), keys, reading.workers, reading.skipped, watch=watch)) as loaded:
            for done, items in enumerate(loaded, 1):
                yield from items
                if reading.tell:
                    reading.tell(min(done * world.size, count), count)
                if reading.stop:
                    return
    except Preempted:
        if not reading.stop:  # what leaves the rest is this stop only
            raise


def fit(protocol: EvaluationProtocol, features: Features, pool: Pool, settings: Any, reading: Reading) -> Any:
    """What the protocol learns from the labelled images of a pool, its `FIT_SPLIT`; every process sees all of them."""
    alone = replace(reading, world=ALONE)
    with closing(images_in(pool, len(pool.samples), alone)) as items:
        pairs: Iterator[Pair] = ((item.image, item.labels) for item in items)
        return protocol.fit(features, pairs, settings)


def tally(
    protocol: EvaluationProtocol,
    features: Features,
    pool: Pool,
    settings: Any,
    reading: Reading,
    observers: Sequence[Observer] = (),
    images: int | None = None,
    fitted: Any = None,
) -> Counts:
    """The counts of the protocol's predictions on the first `images` of a pool with one label space, by all processes.

    None of them: all.  `observers` look at every image.
    """
    (space,), count = pool.union.spaces, len(pool.samples) if images is None else images

    def counted() -> Iterator[tuple[int, Counts]]:
        for item in items:
            prediction = protocol.predict(features, fitted, item.image, settings)
            counts = protocol.count(prediction, item.labels, space, settings)
            yield item.sample, counts
            name = pool.samples[item.sample].image
            for observer in observers:
                observer.observe_(Counted(item.sample, name, item.image, item.labels, prediction, counts))

    with closing(images_in(pool, count, reading)) as items:
        return over_processes(collect(counted(), protocol.empty(space, count, settings), count), reading.world)


def over_processes(counts: Counts, world: World) -> Counts:
    """The counts of all processes, the same on each."""
    sums = {name: world.all_sum(counts.sums[name]) for name in counts.sums}
    return Counts(sums, joined(world.gather_objects(dict(counts.marks))) if counts.marks else {})


def tally_pixels(
    segment: Features, pool: Pool, settings: EvalSettings, reading: Reading, observers: Sequence[Observer] = ()
) -> Counts:
    """The counts of a segmentor's predictions by the protocol of segmentation, as the settings of an evaluation ask."""
    wanted = segmentation.Settings(boundary=settings.boundary)
    return tally(segmentation, segment, pool, wanted, reading, observers, images_of(pool, settings))
