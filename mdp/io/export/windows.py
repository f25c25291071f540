"""Swin Transformers in a form that torch can trace for images of any size.

timm's blocks cut a map into windows by remainders of remainders of the image's sides, over which tracing does not end,
and draw the mask of shifted windows by copies into slices, which ONNX does not have.  Here are the same numbers from
divisions that round up, comparisons of places, and copies in a stated order of memory.
Source of the equations: Liu et al. 2021, 2103.14030, section 3.2; timm's parameters are taken as they are.
Shape legend: B images, h x w map, C channels, m windows of N cells in a map, H heads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SWIN = "timm.models.swin_transformer"


def rewrite_windows_(network: nn.Module) -> None:
    """Puts the traceable form around every block of a Swin Transformer, and every merging of patches, of a network."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if (form := _FORMS.get(_kind(child))) is not None:
                setattr(part, name, form(child))


def cuts_windows(network: nn.Module) -> bool:
    """Whether a network has parts that there is a traceable form of."""
    return any(_kind(module) in _FORMS for module in network.modules())


class AnySizeBlock(nn.Module):
    """A block of a Swin Transformer, in evaluation."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: Any = block

    def forward(self, maps: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        maps = maps + self._attention(self.block.norm1(maps))
        after: Tensor = maps + self.block.mlp(self.block.norm2(maps))
        return after

    def _attention(self, maps: Tensor) -> Tensor:
        images, height, width, channels = maps.shape
        (high, wide), (down, right) = self.block.window_size, self.block.shift_size
        rows, columns = _rounded_up(height, high), _rounded_up(width, wide)
        shifted = bool(down or right)
        if shifted:
            maps = torch.roll(maps, (-down, -right), (1, 2))
        maps = F.pad(maps, (0, 0, 0, columns * wide - width, 0, rows * high - height))
        cells = maps.reshape(images, rows, high, columns, wide, channels).permute(0, 1, 3, 2, 4, 5)
        windows = _packed(cells).view(images * rows * columns, high * wide, channels)  # (B m, N, C)
        mask = self._mask(rows, columns, maps) if shifted else None
        windows = self._within(windows, images, mask)  # (B m, N, C)
        cells = windows.reshape(images, rows, columns, high, wide, channels).permute(0, 1, 3, 2, 4, 5)
        maps = _packed(cells).view(images, rows * high, columns * wide, channels)
        # chosen by number: a slice would be asked whether it is all there is
        maps = maps.index_select(1, torch.arange(height, device=maps.device))
        maps = maps.index_select(2, torch.arange(width, device=maps.device))  # (B, h, w, C)
        return torch.roll(maps, (down, right), (1, 2)) if shifted else maps

    def _within(self, windows: Tensor, images: int, mask: Tensor | None) -> Tensor:
        """Attention within each window (B m, N, C)."""
        attention = self.block.attn
        count, size, channels = windows.shape
        heads = attention.num_heads
        parts = attention.qkv(windows).reshape(count, size, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # each (B m, H, N, C / H)
        scores = (query * attention.scale) @ key.transpose(-2, -1) + attention._get_rel_pos_bias()  # (B m, H, N, N)
        if mask is not None:
            each = scores.reshape(images, mask.shape[0], heads, size, size) + mask[None, :, None]
            scores = each.reshape(count, heads, size, size)
        mixed = scores.softmax(-1) @ value  # (B m, H, N, C / H)
        projected: Tensor = attention.proj(mixed.transpose(1, 2).reshape(count, size, channels))
        return projected

    def _mask(self, rows: int, columns: int, maps: Tensor) -> Tensor:
        """-100 between cells of a shifted window that were not neighbours before, (m, N, N), and 0 elsewhere."""
        (high, wide), (down, right) = self.block.window_size, self.block.shift_size
        above = _regions(rows * high, high, down, maps)  # (rows high,)
        beside = _regions(columns * wide, wide, right, maps)
        regions = (3 * above[:, None] + beside).reshape(rows, high, columns, wide).permute(0, 2, 1, 3)
        each = _packed(regions).view(rows * columns, 1, high * wide)  # (m, 1, N)
        return torch.where(each == each.transpose(1, 2), 0.0, -100.0)


class AnySizeMerging(nn.Module):
    """The merging of patches between two stages of a Swin Transformer."""

    def __init__(self, merging: nn.Module) -> None:
        super().__init__()
        self.merging: Any = merging

    def forward(self, maps: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, ceil(h / 2), ceil(w / 2), C')."""
        images, height, width, channels = maps.shape
        rows, columns = _rounded_up(height, 2), _rounded_up(width, 2)
        maps = F.pad(maps, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        cells = maps.reshape(images, rows, 2, columns, 2, channels).permute(0, 1, 3, 4, 2, 5)
        merged: Tensor = self.merging.reduction(
            self.merging.norm(_packed(cells).view(images, rows, columns, 4 * channels))
        )
        return merged


_FORMS: dict[str, type[nn.Module]] = {
    f"{_SWIN}.SwinTransformerBlock": AnySizeBlock,
    f"{_SWIN}.PatchMerging": AnySizeMerging,
}


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"


def _rounded_up(length: int, part: int) -> int:
    return (length + part - 1) // part


def _packed(tensor: Tensor) -> Tensor:
    """A copy in the order of the dimensions: views of it need not be asked for."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _regions(length: int, window: int, shift: int, like: Tensor) -> Tensor:
    """Which of three stretches each place is in, (length,): before the last window, in it, or come from the front."""
    places = torch.arange(length, device=like.device)
    return (places >= length - window).long() + (places >= length - shift).long()
