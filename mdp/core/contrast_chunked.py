"""The contrastive kernel in chunks: what `contrast.nce` says, without a tensor of pixels times candidates.

Every form of the loss is one log-sum-exp and a linear term, `mass * logsumexp(logits) - sum_k weight_k logit_k`, so
hard, mixed and sparse-coded targets cost the same.  A chunk's logits stay in the cache; the gradient is computed in the
forward pass, normalisation included, and kept in the layout that the embeddings came in.
Shape legend: B images, D embedding channels, h x w feature grid, P = h w, N = B P pixels, C candidates, K targets a
pixel, U aims; of a chunk b images and n pixels, as (b, ., n) in NCHW and (b, n, .) in channels_last, where `axis` is
the number of the axis that the point stands for.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPS = 1e-6  # shorter vectors count as this long; with torch's 1e-12 the gradient at a zero vector reaches 1e12
_CPU_BYTES = 2 * 2**20  # of a chunk's logits or pixels, which stay in the cache; half or twice as much is as good
_GPU_BYTES = 128 * 2**20  # enough work to hide the launches
_GPU_PIXELS = 256  # at least: every chunk reads all candidates, which for fewer would take longer than the arithmetic
_ALIGNED = 16  # float32 in a cache line: rows of other lengths take a matrix product twice the time
_DENSE = 0.8  # share of pixels to keep from which on leaving the others out costs more than it saves
_TINY = torch.finfo(torch.float32).tiny
_BOUND = 40.0  # float32 holds the exponentials of logits up to this, and sums of 1e20 of them


class Candidates(NamedTuple):
    """Vectors that pixels are compared with, and pulled to."""

    vectors: Tensor  # (C, D), with gradient where it is asked for, or (B, C, D): each image has its own, without
    competes: Tensor  # (C,) or (B, C) bool: which of them are in the denominator
    aims: Tensor | None = None  # (B, U, D): what target classes stand for, where that is none of the vectors
    rivals: Tensor | None = None  # (C, C) bool: row t has those that pixels with the one target t meet


class Pull(NamedTuple):
    """The weighted classes that each pixel is pulled to; one whose mass is 0 has loss and gradient 0."""

    classes: Tensor  # (N, K) int64
    weights: Tensor  # (N, K) float32
    mass: Tensor  # (N, 1) float32: the weight of the log-sum-exp
    left_out: Tensor | None = None  # (N, L) int64: candidates that do not compete for this pixel; C means none


class _Chunk(NamedTuple):
    pixels: Tensor  # (b, D, n) or (b, n, D), a view
    gradient: Tensor | None  # the same view of the gradient
    slopes: Tensor | None  # (C, D): the gradient of the candidates, which chunks add to
    candidates: Candidates
    pull: Pull  # (b, n, .)
    axis: int  # of D: 1 or 2


def chunked_total(
    embeddings: Tensor, candidates: Candidates, pull: Pull, temperature: float, unit: bool = True
) -> Tensor:
    """The sum of all pixels' losses, () float32, with gradient for embeddings and candidates, to be taken once.

    `embeddings` (B, D, h, w) of any float type; the arithmetic is float32.  They are of unit length unless `unit` is
    False: then they are divided by their length here, without a copy of them.
    """
    learnt = candidates.vectors
    total: Tensor = _Chunked.apply(embeddings, learnt, candidates, pull, temperature, unit)  # type: ignore[no-untyped-call]
    return total


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, learnt: Tensor, candidates: Candidates, pull: Pull, temperature: float, unit: bool
    ) -> Tensor:
        total, count = torch.zeros((), device=embeddings.device), len(learnt)
        if not embeddings.is_contiguous(memory_format=torch.channels_last):
            embeddings = embeddings.contiguous()  # chunks have to be views, or what is written to them is lost
        gradient = torch.empty_like(embeddings) if ctx.needs_input_grad[0] else None
        if embeddings.is_contiguous(memory_format=torch.channels_last) and not embeddings.is_cuda:
            candidates = _aligned(candidates)
        slopes = torch.zeros_like(candidates.vectors, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        loss = _loss if embeddings.is_cuda else _loss_of_some
        with torch.autocast(embeddings.device.type, enabled=False):
            bounded = not unit and not embeddings.is_cuda and _longest(candidates.vectors) <= _BOUND * temperature
            for chunk in _chunks(embeddings, gradient, slopes, candidates, pull):
                total += loss(chunk, temperature, unit, bounded)
        ctx.gradient, ctx.slopes = gradient, None if slopes is None else slopes[:count]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        gradient, slopes, ctx.gradient, ctx.slopes = ctx.gradient, ctx.slopes, None, None
        if gradient is None and slopes is None:
            raise RuntimeError("the gradient of a chunked loss is kept for one backward pass; it was asked for twice")
        for each in (gradient, slopes):
            if each is not None:
                each.mul_(outputs[0])  # a copy would double the memory of the loss
        return gradient, slopes, None, None, None, None


def _chunks(
    embeddings: Tensor, gradient: Tensor | None, slopes: Tensor | None, candidates: Candidates, pull: Pull
) -> Iterator[_Chunk]:
    """Views of the batch in its own layout: images together, or pieces of one."""
    axis = 2 if embeddings.is_contiguous(memory_format=torch.channels_last) else 1
    own = candidates.vectors.dim() == 3
    images = len(embeddings) if own or axis == 1 else 1  # in channels_last the pixels of all images lie in one row
    pixels, rooms = _grid(embeddings, axis, images), None if gradient is None else _grid(gradient, axis, images)
    count = pixels.shape[3 - axis]
    targets = _each(pull, lambda t: t.view(images, count, -1))
    classes, channels = candidates.vectors.shape[-2:]
    size = chunk_of(classes if embeddings.is_cuda else max(classes, channels), embeddings.is_cuda)
    length = _even(count, size)
    together = max(1, size // count) if embeddings.is_cuda else 1  # on a CPU an image is enough work for a call
    for first in range(0, images, together):
        some = slice(first, first + together)
        theirs = _of_images(candidates, some) if own else candidates
        for start in range(0, count, length):
            piece = slice(start, start + length)
            block = (some, slice(None), piece) if axis == 1 else (some, piece)
            room = None if rooms is None else rooms[block]
            yield _Chunk(pixels[block], room, slopes, theirs, _piece(targets, some, piece), axis)


def chunk_of(candidates: int, gpu: bool) -> int:
    """How many pixels' logits are made at a time.

    >>> chunk_of(342, False), chunk_of(342, True), chunk_of(700_416, True)
    (1533, 98112, 256)
    """
    least, size = (_GPU_PIXELS, _GPU_BYTES) if gpu else (1, _CPU_BYTES)
    return max(least, size // (4 * max(1, candidates)))


def _even(count: int, size: int) -> int:
    """The length of pieces of about one size, of `size` at most where it is no trouble, whole cache lines."""
    pieces = -(-count // size)
    return -(-count // (pieces * _ALIGNED)) * _ALIGNED


def _aligned(candidates: Candidates) -> Candidates:
    """With candidates that do not compete added, so that a pixel's logits are whole cache lines."""
    spare = -candidates.vectors.shape[-2] % _ALIGNED
    vectors, competes = F.pad(candidates.vectors, (0, 0, 0, spare)), F.pad(candidates.competes, (0, spare))
    rivals = None if candidates.rivals is None else F.pad(candidates.rivals, (0, spare))
    return candidates._replace(vectors=vectors, competes=competes, rivals=rivals)


def _of_images(candidates: Candidates, images: slice) -> Candidates:
    """Their candidates; of one image those alone that compete, where none of them is a target."""
    vectors, competes, aims = (None if t is None else t[images] for t in candidates[:3])
    assert vectors is not None
    assert competes is not None
    if aims is not None and len(vectors) == 1 and not vectors.is_cuda:
        kept = competes[0].nonzero().flatten()
        vectors, competes = vectors.index_select(1, kept), competes.index_select(1, kept)
    return Candidates(vectors, competes, aims)


def _piece(pull: Pull, images: slice, pixels: slice) -> Pull:
    return _each(pull, lambda t: t[images, pixels])


def _each(pull: Pull, change: Callable[[Tensor], Tensor]) -> Pull:
    left_out = None if pull.left_out is None else change(pull.left_out)
    return Pull(change(pull.classes), change(pull.weights), change(pull.mass), left_out)


def _grid(tensor: Tensor, axis: int, images: int) -> Tensor:
    """(B, D, h, w) as (B, D, P), or as (images, pixels, D) where channels come last."""
    return tensor.flatten(2) if axis == 1 else tensor.permute(0, 2, 3, 1).reshape(images, -1, tensor.shape[1])


def _longest(vectors: Tensor) -> float:
    """The length of the longest vector; of no number where one of them is none."""
    return float(torch.linalg.vector_norm(vectors.detach().float(), dim=-1).amax()) if vectors.numel() else 0.0


def _loss_of_some(chunk: _Chunk, temperature: float, unit: bool, bounded: bool) -> Tensor:
    """The chunk's loss, computed for the pixels that have a mass: saves the time of many ignored ones."""
    across, (images, count, _) = 3 - chunk.axis, chunk.pull.mass.shape
    weighs = (chunk.pull.mass != 0).flatten()
    some = -(-int(weighs.sum()) // _ALIGNED) * _ALIGNED  # filled up with others, which add nothing
    if images > 1 or some > _DENSE * count:
        return _loss(chunk, temperature, unit, bounded)
    if chunk.gradient is not None:
        chunk.gradient.zero_()
    if some == 0:
        return chunk.pull.mass.new_zeros(())
    kept = weighs.argsort(descending=True, stable=True)[:some]
    pixels, pull = _picked(chunk.pixels, across, kept), _each(chunk.pull, lambda t: t.index_select(1, kept))
    if chunk.gradient is None:
        return _loss(chunk._replace(pixels=pixels, pull=pull), temperature, unit, bounded)
    slopes = torch.empty_like(pixels)
    found = _loss(chunk._replace(pixels=pixels, pull=pull, gradient=slopes), temperature, unit, bounded)
    if across == 1:
        chunk.gradient.index_copy_(1, kept, slopes)
    else:
        chunk.gradient.scatter_(2, kept.expand_as(slopes), slopes)
    return found


def _picked(pixels: Tensor, across: int, kept: Tensor) -> Tensor:
    """Some of the pixels (1, D, n) or (1, n, D); along the last axis `gather` takes half of `index_select`'s time."""
    if across == 1:
        return pixels.index_select(1, kept)
    return pixels.gather(2, kept.expand(*pixels.shape[:2], len(kept)))


def _loss(chunk: _Chunk, temperature: float, unit: bool, bounded: bool = False) -> Tensor:
    """The sum over pixels of mass * logsumexp - sum_k weight_k logit_k; writes the gradient where there is room.

    Logits that are `bounded` need neither their largest to be looked for nor it to be subtracted.
    """
    axis, (vectors, competes, aims, rivals) = chunk.axis, chunk.candidates
    pull = _each(chunk.pull, lambda t: t.transpose(1, 2)) if axis == 1 else chunk.pull
    pixels = chunk.pixels.float()
    length = None if unit else _lengths(pixels, axis)
    scale = 1 / temperature if length is None else length.clamp(min=EPS).reciprocal_() / temperature
    pixels = pixels * scale
    logits = _against(vectors, pixels, axis)  # (b, C, n) or (b, n, C)
    _leave_out_(logits, competes, axis)
    if rivals is not None:
        compared = rivals[chunk.pull.classes[..., 0]]  # (b, n, C)
        logits.masked_fill_(~(compared.mT if axis == 1 else compared), -torch.inf)
    pulling = logits if aims is None else _against(aims, pixels, axis)  # (b, C or U, n) or (b, n, C or U)
    pulled = torch.where(pull.weights != 0, pulling.gather(axis, pull.classes), 0.0)  # 0 * inf would be NaN
    if pull.left_out is not None:
        spare = F.pad(logits, (0, 0, 0, 1) if axis == 1 else (0, 1))  # entry C takes those that mean none
        logits = spare.scatter_(axis, pull.left_out, -torch.inf).narrow(axis, 0, logits.shape[axis])
    if bounded:
        total = logits.exp_().sum(axis, keepdim=True)
        whole = total.log()
    else:
        top = logits.amax(axis, keepdim=True).clamp_(min=-1 / _TINY)  # finite where nothing competes
        total = logits.sub_(top).exp_().sum(axis, keepdim=True)
        whole = total.log() + top
    weighed = torch.where(pull.mass != 0, pull.mass * whole, 0.0)
    loss = weighed.sum() - (pull.weights * pulled).sum()
    if chunk.gradient is None and chunk.slopes is None:
        return loss
    shares = logits.mul_(pull.mass / total.clamp(min=_TINY) * scale)  # d loss / d logits, but for the targets, scaled
    weights = pull.weights * scale
    if aims is None:
        shares = shares.scatter_add_(axis, pull.classes, -weights)
        if chunk.slopes is not None:
            raw = chunk.pixels.float()  # the scale is in the shares
            chunk.slopes.add_((shares @ raw.mT if axis == 1 else shares.mT @ raw).sum(0))
        if chunk.gradient is None:
            return loss
        slopes = _back(vectors, shares, axis)
    else:
        slopes = _back(vectors, shares, axis)
        assert chunk.gradient is not None
        slopes -= _back(aims, torch.zeros_like(pulling).scatter_add_(axis, pull.classes, weights), axis)
    if length is None:
        chunk.gradient.copy_(slopes)
    else:  # what changes the length changes nothing
        radial = (slopes * pixels).sum(axis, keepdim=True) * temperature**2
        torch.addcmul(slopes, pixels, torch.where(length > EPS, radial, 0.0), value=-1, out=chunk.gradient)
    return loss


def _lengths(pixels: Tensor, axis: int) -> Tensor:
    """The lengths of vectors along an axis; `vector_norm` is quick along the last one only."""
    if axis == 2:
        lengths: Tensor = torch.linalg.vector_norm(pixels, dim=2, keepdim=True)
        return lengths
    return pixels.square().sum(1, keepdim=True).sqrt_()


def _leave_out_(logits: Tensor, competes: Tensor, axis: int) -> None:
    """Writes -inf where candidates do not compete."""
    if logits.is_cuda:  # how many they are would have to be waited for
        logits.masked_fill_(~competes[..., None] if axis == 1 else ~competes[..., None, :], -torch.inf)
    else:  # one image at a time
        logits.index_fill_(axis, (~competes).flatten().nonzero().flatten(), -torch.inf)


def _against(vectors: Tensor, pixels: Tensor, axis: int) -> Tensor:
    return vectors.float() @ pixels if axis == 1 else pixels @ vectors.float().mT


def _back(vectors: Tensor, shares: Tensor, axis: int) -> Tensor:
    return vectors.float().mT @ shares if axis == 1 else shares @ vectors.float()
