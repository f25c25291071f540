"""Looking at every image of a dataset once, in worker processes: what is in each file, and whether it can be read.

Workers get a function and file names, no dataset, so any way of starting processes will do.  They never outlive the
call: signals are the main process's, and whatever is raised there ends them.
"""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mdp.io.annotations.drawing import format_of
from mdp.io.check.objects import objects_table, places_of
from mdp.io.datasets._dataset import Dataset, Pair, Photo, Sample
from mdp.io.errors import DatasetError, Preempted, ResourceError
from mdp.io.files import jpeg
from mdp.io.files.formats import pages as pictures_in
from mdp.io.files.formats import palette_of
from mdp.io.files.label_maps import Strange, UnknownColors
from mdp.io.files.photos import read_claims, read_orientation, read_samples, to_unit
from mdp.io.files.reading import is_file, read_bytes
from mdp.io.processes.early import STOPPING
from mdp.label_space import IGNORE, UNKNOWN, LabelSpace
from mdp.photo_rule import PLAIN, PhotoRule

Read = Callable[[Sample], Pair]
Look = Callable[[Sample], "Observation"]
Row: TypeAlias = list[tuple[int, int]]  # the classes of an image, and the pixels that each has
Labelled: TypeAlias = "NDArray[np.uint16] | None"  # what `look_at` gets
Kinds: TypeAlias = "NDArray[np.int8] | None"  # too

_CHUNK = 8  # images a message: short enough to stop within a second
# decoding a second time, for its orientation, only a photo that may have one
_EXIF_MARKS = (b"Exif", b"eXIf", b"EXIF", b"exif", b"rientation")
_PNG_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_JPEG_KINDS = {1: "grey", 3: "RGB", 4: "CMYK"}
_NO_VALUES = np.empty(0, dtype=np.int64)
_MAGIC = {b"BM": "BMP", b"II": "TIFF", b"MM": "TIFF", b"RI": "WebP", b"MA": "MATLAB", b"P5": "PGM", b"P6": "PPM"}


class LineEnds(NamedTuple):
    """How often bytes occur in a file that a text mode would convert."""

    size: int
    line_feeds: int
    pairs: int  # carriage return and line feed


class Spread(NamedTuple):
    """The values of a photo's channels, with the declared range as [0, 1]; a sum over photos is that of all of them."""

    values: NDArray[np.float64]  # (K,) numbers; what is none is left out here and below
    sums: NDArray[np.float64]  # (K,) of the values, clipped
    squares: NDArray[np.float64]  # (K,)
    missing: int  # values that are no number, which become 0
    outside: int  # values beyond the range, which are clipped


class Observation(NamedTuple):
    """The facts of one image.  Where it cannot be read all but `error` is empty."""

    error: str = ""
    height: int = 0
    width: int = 0
    kind: str = ""  # such as "JPEG RGB + PNG palette"
    orientation: int = 1  # of EXIF
    image_hash: str = ""  # SHA-256 of the files; generated pictures have none
    labels_hash: str = ""
    pixel_hash: str = ""  # SHA-256 of the decoded photo
    look: int | None = None  # 64 bits that resized and recompressed copies share; None: nearly uniform
    values: NDArray[np.int64] = _NO_VALUES  # the raw label values, and the pixels that have them
    counts: NDArray[np.int64] = _NO_VALUES
    ramps: bool = False  # labels change gradually, as after a resize that interpolates
    palette: tuple[tuple[int, str], ...] = ()  # the used values of a palette file that is read by value, and colours
    pictures: tuple[int, int] = (1, 1)  # in the photo's file and in that of the label map: pages, images of a film
    line_ends: LineEnds | None = None  # of a photo whose bytes are as chance would have them
    objection: str = ""  # of the strict decoder, to damage that another passes over
    strange: Strange | None = None  # colours of a label map that are no class's
    spread: Spread | None = None  # of photos whose range or channels are declared
    places: NDArray[np.int64] = _NO_VALUES  # where objects lie, as `objects.places_of` gives it, if there are such


def check_samples(
    dataset: Dataset,
    samples: Sequence[Sample],
    workers: int,
    stop: Callable[[], object] | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> list[Observation]:
    """The facts of each sample, in order.  Files that cannot be read are named in `Observation.error`, not raised.

    `stop` is asked between images, `tell` hears how many are done.  Raises Preempted when `stop` gives true,
    ResourceError when a worker died, memory is short or a file may not be read.
    """
    labelled = merged_values(dataset.labels) if dataset.labels.classes else None
    observations: list[Observation] = [Observation()] * len(samples)
    done = 0
    objects = objects_table(dataset.labels) if dataset.labels.classes else None
    look = partial(look_at, dataset.read, labelled, photos=dataset.photos, objects=objects)
    with closing(_looked_at(look, samples, workers, stop)) as looked:
        for start, chunk in looked:
            observations[start : start + len(chunk)] = chunk
            done += len(chunk)
            if tell:
                tell(done, len(samples))
    return observations


def merged_values(space: LabelSpace) -> NDArray[np.uint16]:
    """For each raw value (65536) the smallest one that means the same; empty where no two do."""
    table = space.table
    merged = np.arange(len(table), dtype=np.uint16)
    for label in np.unique(table[table > UNKNOWN]):
        alike = np.flatnonzero(table == label)
        merged[alike] = alike[0]
    return merged if (merged != np.arange(len(table))).any() else merged[:0]


def classes_in(space: LabelSpace, seen: Observation) -> Row:
    """The classes of an image that was looked at, and their pixels."""
    if seen.error or not space.classes:
        return []
    labels = space.table[seen.values]
    pixels = np.zeros(len(space.classes), dtype=np.int64)
    np.add.at(pixels, labels[labels > IGNORE], seen.counts[labels > IGNORE])
    return [(int(label), int(pixels[label])) for label in np.flatnonzero(pixels)]


def look_at(
    read: Read, merged: Labelled, sample: Sample, photos: PhotoRule = PLAIN, objects: Kinds = None
) -> Observation:
    """Everything about one image: both files decoded in full, hashes, label values and how many pixels have them.

    `merged` is what `merged_values` gives, None for photos without labels, and `objects` what `objects_table` does.
    """
    labelled = merged is not None and bool(sample.labels)
    try:
        with jpeg.objections() as objections:
            image, raw = read(sample)
    except UnknownColors as error:
        return Observation(error=str(error), strange=error.strange)
    except DatasetError as error:
        return Observation(error=str(error))
    on_disk = is_file(sample.image)  # generated pictures have names, but no files
    photo = read_bytes(sample.image, "photo") if on_disk else b""
    drawn = format_of(sample.labels)  # not from a file of its own
    labels = read_bytes(sample.labels, "label map") if on_disk and labelled and not drawn else b""
    counts = np.bincount(raw.ravel()) if labelled else _NO_VALUES
    values = np.flatnonzero(counts)
    return Observation(
        height=image.shape[0],
        width=image.shape[1],
        kind=" + ".join(filter(None, (_kind(photo), drawn.NAME if drawn else _kind(labels)))),
        orientation=_orientation(sample, photos) if any(mark in photo for mark in _EXIF_MARKS) else 1,
        image_hash=hashlib.sha256(photo).hexdigest() if on_disk else "",
        labels_hash=hashlib.sha256(labels).hexdigest() if labels else "",
        pixel_hash=pixel_hash(image),
        look=difference_hash(image),
        values=values,
        counts=counts[values],
        ramps=labelled and has_ramps(merged[raw] if merged is not None and len(merged) else raw),
        palette=_palette(labels, values.tolist()) if labelled else (),
        pictures=(1 if photos.channels else pictures_in(photo), pictures_in(labels)),  # pages may be channels
        line_ends=_line_ends(photo),
        objection=objections[0] if objections else "",
        spread=spread(read_samples(sample.image, photos), photos) if on_disk and _declared(photos) else None,
        places=places_of(objects[raw]) if labelled and objects is not None else _NO_VALUES,
    )


def _orientation(sample: Sample, photos: PhotoRule) -> int:
    """A photo's EXIF orientation; Pillow cannot decode all that has many channels, so there its header tells."""
    return read_claims(sample.image)[2] if photos.channels else read_orientation(sample.image)


def _declared(photos: PhotoRule) -> bool:
    return photos.range is not None or photos.channels is not None


def spread(samples: NDArray[np.generic], photos: PhotoRule) -> Spread:
    """The values (H, W, K) of a photo as they are stored, against the range that is declared."""
    low, high = photos.limits
    values = samples.astype(np.float64)
    numbers = ~np.isnan(values)
    unit = to_unit(samples, low, high).reshape(-1, samples.shape[2])  # (H W, K)
    return Spread(
        values=numbers.sum(axis=(0, 1)).astype(np.float64),
        sums=unit.sum(axis=0, dtype=np.float64),
        squares=np.square(unit, dtype=np.float64).sum(axis=0),
        missing=int(numbers.size - numbers.sum()),
        outside=int(((values < low) | (values > high)).sum()),
    )


def _palette(data: bytes, values: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """The used entries of a palette; one of greys in order says nothing but the numbers."""
    palette = palette_of(data)
    entries = [(value, palette[3 * value : 3 * value + 3]) for value in values if 3 * value + 3 <= len(palette)]
    if any(value for value, _ in entries) and all(color == bytes([value]) * 3 for value, color in entries):
        return ()
    return tuple((value, f"#{color.hex()}") for value, color in entries)


def _line_ends(data: bytes) -> LineEnds | None:
    """Of JPEG and WebP, whose packed pixels are as good as random, and which have no checksum."""
    if not data.startswith((b"\xff\xd8", b"RIFF")):
        return None
    return LineEnds(len(data), data.count(b"\n"), data.count(b"\r\n"))


def pixel_hash(rgb: Photo) -> str:
    """SHA-256 of a photo (H, W, K), whatever file it came from."""
    digest = hashlib.sha256(repr(rgb.shape).encode())
    digest.update(rgb.ravel().view(np.uint8).data)
    return digest.hexdigest()


def difference_hash(rgb: Photo) -> int | None:
    """64 bits: whether each of 8 x 9 blocks is brighter than its right neighbour; None for nearly uniform pictures.

    >>> difference_hash(np.full((40, 40, 3), 7, dtype=np.uint8)) is None
    True
    """
    step = max(1, min(rgb.shape[:2]) // 128)  # blocks of 16 pixels each way are means enough
    grey = _grey(rgb[::step, ::step])  # (h, w)
    rows, columns = (np.arange(count) * size // count for count, size in zip((8, 9), grey.shape, strict=True))
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1)  # (8, 9)
    heights, widths = (
        np.diff([*starts, size]).clip(min=1) for starts, size in zip((rows, columns), grey.shape, strict=True)
    )
    blocks = sums / np.outer(heights, widths)
    brighter = blocks[:, :-1] > blocks[:, 1:]  # (8, 8)
    # a plain gradient has all bits alike, and so has every other plain gradient
    if blocks.max() - blocks.min() < 16 or not 4 <= brighter.sum() <= 60:
        return None
    return int.from_bytes(np.packbits(brighter).tobytes())


def _grey(pixels: Photo) -> NDArray[np.floating]:
    """The mean (h, w) of the channels (h, w, K), 0 to 255."""
    if pixels.dtype == np.float32:
        grey: NDArray[np.floating] = 255 * pixels.mean(axis=2)
        return grey
    # plane by plane: NumPy takes ten times as long for a mean over so short an axis
    total = pixels[..., 0].astype(np.uint32)
    for channel in range(1, pixels.shape[2]):
        total += pixels[..., channel].astype(np.uint32)
    mean: NDArray[np.floating] = total / pixels.shape[2]
    return mean


def has_ramps(raw: NDArray[np.integer]) -> bool:
    """Whether many values change in steps through the values between, as only a resize that interpolates makes them.

    >>> has_ramps(np.tile(np.arange(0, 60, 5), (40, 1))), has_ramps(np.tile(np.arange(12) // 4, (40, 1)))
    (True, False)
    """
    left, middle, right = raw[:, :-2], raw[:, 1:-1], raw[:, 2:]
    edges = np.count_nonzero(left != middle)
    between = ((left < middle) & (middle < right)) | ((left > middle) & (middle > right))
    steps = np.count_nonzero(between)
    return bool(edges >= 32 and steps > 0.3 * edges and np.unique(middle[between]).size >= 6)


def _kind(data: bytes) -> str:
    """Format and colour mode as stored, from the file's head."""
    if data.startswith(b"\x89PNG"):
        depth = f" {data[24]}-bit" if data[24] != 8 else ""
        return f"PNG {_PNG_KINDS.get(data[25], '?')}{depth}"
    if data.startswith(b"\xff\xd8"):
        return f"JPEG {_JPEG_KINDS.get(_jpeg_channels(data), '?')}"
    return _MAGIC.get(data[:2], "")


def _jpeg_channels(data: bytes) -> int:
    position = 2
    while position + 10 <= len(data):
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return data[position + 9]
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4])
    return 0


# Worker processes


def _looked_at(
    look: Look, samples: Sequence[Sample], workers: int, stop: Callable[[], object] | None
) -> Generator[tuple[int, list[Observation]], None, None]:
    """Chunks of results with the index of the first, as they come."""
    if workers > 0:
        yield from _by_workers(look, samples, workers, stop)
        return
    for start, sample in enumerate(samples):
        _ask(stop)
        yield start, [look(sample)]


def _ask(stop: Callable[[], object] | None) -> None:
    if stop and stop():
        raise Preempted("stopped while the data were being checked; nothing was done yet, run the same command again")


def _by_workers(
    look: Look, samples: Sequence[Sample], workers: int, stop: Callable[[], object] | None
) -> Generator[tuple[int, list[Observation]], None, None]:
    starts = iter(range(0, len(samples), _CHUNK))
    crew: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, int] = {}
    try:
        for _ in range(min(workers, -(-len(samples) // _CHUNK))):
            with _signals_held():  # a worker is born with them held, and stays so; and none is born unknown to the crew
                connection, process = _hire(look)
                crew[connection] = process
            busy[connection] = next(starts)
            _send(connection, samples[busy[connection] :][:_CHUNK])
        while busy:
            _ask(stop)
            for connection in [ready for ready in wait(list(busy), timeout=1) if isinstance(ready, Connection)]:
                start, result = busy.pop(connection), _receive(connection)
                following = next(starts, None)
                if following is not None:
                    busy[connection] = following
                    _send(connection, samples[following : following + _CHUNK])
                yield start, result
    finally:
        with _signals_held():
            for process in crew.values():
                process.kill()  # they heed nothing milder; they only read, so nothing is lost
            for connection, process in crew.items():
                process.join()
                connection.close()


def _hire(look: Look) -> tuple[Connection, BaseProcess]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work, args=(theirs, ours, look, os.getpid()), daemon=True)
    process.start()
    theirs.close()  # so that a dead worker is the end of its pipe
    return ours, process


@contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(connection: Connection, samples: Sequence[Sample]) -> None:
    try:
        connection.send(list(samples))
    except OSError as error:
        raise _died() from error


def _receive(connection: Connection) -> list[Observation]:
    try:
        result = connection.recv()
    except (EOFError, OSError) as error:
        raise _died() from error
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, list)
    return result


def _died() -> ResourceError:
    return ResourceError("a process that checks the data died; the machine may be out of memory: try --workers 1")


def _work(connection: Connection, ours: Connection, look: Look, parent: int) -> None:
    """A worker: chunks of samples in, what they show out, until the main process is gone."""
    ours.close()  # a fork's copy of the other end would keep the pipe open
    torch.set_num_threads(1)
    while True:
        while not connection.poll(1):
            if os.getppid() != parent:
                return
        try:
            samples = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result: object = [look(sample) for sample in samples]
        except Exception as error:  # raised in the main process
            result = error
        try:
            connection.send(result)
        except OSError:  # nobody is there to hear it
            return
