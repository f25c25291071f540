"""Photos and label maps where the network trains: crops are cut there, by what workers draw.

A worker decides all that is chance; it reads a photo only while that is not on the device yet, and sends it whole.
Crops are those of a run without a cache but for what `cut_image` says of resizing; on a CPU they are the same bits.
Shape legend: B images, V views.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdp.core.photometry import stack_draws
from mdp.io.data.cache.form import of_union, own
from mdp.io.data.cache.kept import Kept
from mdp.io.data.pool import Key, Pool
from mdp.io.errors import MdpError, RecipeError


class Items(Protocol):
    """What makes items of samples, in its two halves."""

    pool: Pool
    labelled: bool
    draws_by_labels: bool  # whether chance looks at a label map

    @property
    def by_bytes(self) -> bool:
        """Whether `cut` changes colours on bytes, which only a CPU does."""

    def draw(self, key: Key, size: tuple[int, int], labels: Tensor | None) -> Any:
        """All that chance decides; it has `sample`, its index, and `colors`, a draw for each view."""

    def cut(self, image: Tensor, labels: Any, drawn: Any) -> Any:
        """The item, on the image's device."""


class Whole(NamedTuple):
    """A photo and its labels on the way to the device."""

    photo: Tensor  # (H, W, K) uint8
    labels: Tensor | None  # (H, W) in the form that is kept


class Asked(NamedTuple):
    """An item that is to be cut on the device."""

    drawn: Any
    whole: Whole | None  # None: it is there


class AskedBatch(NamedTuple):
    """Some of them, as the loader hands them over: their colour draws are few large tensors."""

    drawn: list[Any]
    colors: Any  # the draws of all views of all images, stacked
    whole: list[Whole | None]


class Drawing:
    """Key -> what is to be cut; what the loader's workers run."""

    def __init__(self, items: Items, kept: Kept) -> None:
        self.items, self.kept = items, kept

    def __getitem__(self, key: Key) -> Asked | MdpError:
        items, kept, index = self.items, self.kept, key[1]
        size = kept.elsewhere(index)
        if size is not None and (kept.has_labels(index) or not items.draws_by_labels):
            labels = kept.labels(index) if items.draws_by_labels else None
            return Asked(items.draw(key, size, labels), None)
        try:
            if items.labelled:
                image, labels = items.pool.read(index)
            else:
                image, labels = items.pool.photo(index), None
        except MdpError as error:
            return error
        drawn = items.draw(key, (image.shape[1], image.shape[2]), labels)
        first = int(kept.places.first[index])
        sent = None if labels is None else own(labels, first, kept.places.form)
        return Asked(drawn, Whole(image.permute(1, 2, 0), sent))


def stack_asked(asked: list[Asked]) -> AskedBatch:
    """The items as a worker hands them over."""
    colors = stack_draws([draw for item in asked for draw in item.drawn.colors])
    return AskedBatch([item.drawn._replace(colors=()) for item in asked], colors, [item.whole for item in asked])


class OnDevice:
    """The photos and label maps that are on the device; the main process has it.

    Raises RecipeError where colours are changed on bytes.
    """

    def __init__(self, items: Items, kept: Kept, stack: Callable[[list[Any]], Any], device: torch.device) -> None:
        if items.by_bytes and device.type != "cpu":
            raise RecipeError(
                f"run.cache: device: crops are cut on {device}, and photometry.bytes is for a CPU; take memory, or set "
                "photometry.bytes to false"
            )
        self.items, self.kept, self.stack, self.device = items, kept, stack, device
        self.there: dict[int, Whole] = {}

    def cut_(self, batch: AskedBatch | list[Any]) -> Any:
        """The crops of a batch as the loader would have handed them over, and their photos are there from now on."""
        if isinstance(batch, list):  # empty: none of its samples could be read
            return batch
        count = len(batch.colors[0]) // len(batch.drawn)  # V
        made = []
        for number, (drawn, sent) in enumerate(zip(batch.drawn, batch.whole, strict=True)):
            colors = tuple(
                type(batch.colors)(*(field[view] for field in batch.colors))
                for view in range(number * count, (number + 1) * count)
            )
            photo, labels = self._there(drawn.sample, sent)
            made.append(self.items.cut(photo.permute(2, 0, 1), labels, drawn._replace(colors=colors)))
        return self._with_classes(self.stack(made), [drawn.sample for drawn in batch.drawn])

    def _there(self, index: int, sent: Whole | None) -> Whole:
        """A sample's photo on the device; one that was sent is what its draws are of, whatever is there."""
        if sent is None:
            return self.there[index]
        whole = Whole(self._moved(sent.photo), None if sent.labels is None else self._moved(sent.labels))
        if index not in self.there:
            self.there[index] = whole
            self.kept.note_elsewhere(index, (whole.photo.shape[0], whole.photo.shape[1]))
        return whole

    def _moved(self, tensor: Tensor) -> Tensor:
        """On the device; memory that a worker handed over is let go of, since a batch's parts lie in one piece."""
        if self.device.type == "cpu":
            return tensor.clone()
        return tensor.to(self.device, non_blocking=True)

    def _with_classes(self, batch: Any, indices: list[int]) -> Any:
        """The batch with its labels in the union."""
        if isinstance(batch.labels, tuple) and not batch.labels:
            return batch
        first = torch.from_numpy(self.kept.places.first[indices]).to(self.device, non_blocking=True)[:, None, None]
        if isinstance(batch.labels, tuple):
            return batch._replace(labels=tuple(of_union(group, first) for group in batch.labels))
        return batch._replace(labels=of_union(batch.labels, first))
