"""The views of an image: how many, of what sizes, from where; and where two views show the same.

A plan says what is wanted, `draw_views` draws it, `mdp.core.geometry` cuts it.  Views that must overlap another one, or
must not too much, are redrawn ten times; then any is taken, and `missed` counts those that are not as wanted.
Shape legend: V views, B images, n points a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mdp.core.bounds import Positive, Share, Side, check_bounds
from mdp.core.chance import coin
from mdp.core.geometry import Box, View, draw_crop
from mdp.core.photometry import PhotometrySettings

TRIES = 10  # of the released code of arXiv 2106.05967
_OUTSIDE = 2.0  # in a view's coordinates: beyond every pixel that interpolation looks at


@dataclass(frozen=True, kw_only=True)
class ViewGroup:
    """Views of one size, drawn alike; a network takes them as one batch."""

    count: Positive
    size: Side  # pixels, of a square
    area: tuple[Share, Share]  # the share of the image that a view shows, uniform in this range
    auto_augment: tuple[Share, ...] = ()  # of each view: the share of images that take AutoAugment instead; (): none

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 0 < self.area[0] <= self.area[1]:
            raise ValueError(f"area: expected 0 < low <= high <= 1, got {list(self.area)}")
        if self.auto_augment and len(self.auto_augment) != self.count:
            raise ValueError(
                f"auto_augment: expected a share for each of {self.count} views, got {list(self.auto_augment)}"
            )


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """The views of every image, group by group, each changed by a photometry of its own draw."""

    groups: tuple[ViewGroup, ...]
    photometry: PhotometrySettings
    anchor: int | None = None  # the number of the view that all later ones must overlap
    min_overlap: Share = 0.0  # by this share of their own area
    max_iou: Share = 1.0  # of any two views of the first group

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.groups:
            raise ValueError("groups: expected a group of views or more, got none")
        count = len(self.sizes)
        if self.anchor is not None and not 0 <= self.anchor < count - 1:
            raise ValueError(
                f"anchor: expected the number of a view, of {count}, with others after it, got {self.anchor}"
            )
        if self.min_overlap > 0 and self.anchor is None:
            raise ValueError(f"min_overlap: {self.min_overlap} of what?  anchor names the view to overlap")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The side of each of the V views."""
        return tuple(group.size for group in self.groups for _ in range(group.count))

    @property
    def auto_augment(self) -> tuple[float, ...]:
        """The share of images of each of the V views that take AutoAugment in the place of the photometry."""
        return tuple(share for group in self.groups for share in group.auto_augment or (0.0,) * group.count)

    @property
    def constrained(self) -> bool:
        """Whether views depend on each other."""
        return self.min_overlap > 0 or self.max_iou < 1


def two_views(size: int, area: tuple[float, float], photometry: PhotometrySettings) -> ViewPlan:
    """Two views drawn alike, as MoCo has them."""
    return ViewPlan(groups=(ViewGroup(count=2, size=size, area=area),), photometry=photometry)


# Drawing


def draw_views(rng: torch.Generator, height: int, width: int, plan: ViewPlan) -> tuple[View, ...]:
    """The V views of an image of this size, in the plan's order.

    >>> plan = two_views(32, (0.2, 1.0), PhotometrySettings())
    >>> len(draw_views(torch.Generator().manual_seed(0), 40, 60, plan))
    2
    """
    views: list[View] = []
    for group in plan.groups:
        for _ in range(group.count):
            box = _draw_box(rng, height, width, group.area, [view.box for view in views], plan)
            views.append(View(box, coin(rng, 0.5)))
    return tuple(views)


def _draw_box(
    rng: torch.Generator, height: int, width: int, area: tuple[float, float], before: Sequence[Box], plan: ViewPlan
) -> Box:
    """The box of the view after those; one that is as the plan wants it, if ten tries give one."""
    if plan.constrained:
        for _ in range(TRIES):
            box = draw_crop(rng, height, width, area)
            if _as_wanted(box, before, plan):
                return box
    return draw_crop(rng, height, width, area)


def _as_wanted(box: Box, before: Sequence[Box], plan: ViewPlan) -> bool:
    if plan.anchor is not None and len(before) > plan.anchor:
        shared = overlap(box, before[plan.anchor])
        if shared < plan.min_overlap * box.height * box.width:
            return False
    return len(before) >= plan.groups[0].count or all(iou(box, other) <= plan.max_iou for other in before)


def overlap(first: Box, second: Box) -> int:
    """The pixels that lie in both boxes.

    >>> overlap(Box(0, 0, 4, 4), Box(2, 3, 4, 4))
    2
    """
    rows = min(first.top + first.height, second.top + second.height) - max(first.top, second.top)
    columns = min(first.left + first.width, second.left + second.width) - max(first.left, second.left)
    return max(0, rows) * max(0, columns)


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes.

    >>> iou(Box(0, 0, 2, 2), Box(0, 1, 2, 2))
    0.3333333333333333
    """
    shared = overlap(first, second)
    return shared / (first.height * first.width + second.height * second.width - shared)


def frame_ious(frames: Tensor) -> Tensor:
    """Intersection over union of all pairs of some views of each image: frames (V, B, 5) -> (B, V (V - 1) / 2).

    >>> frame_ious(torch.tensor([[[0, 0, 2, 2, 0]], [[0, 1, 2, 2, 1]]])).tolist()
    [[0.3333333432674408]]
    """
    count = len(frames)
    first, second = torch.triu_indices(count, count, 1)  # (P,) each
    low, size = frames[..., :2].float(), frames[..., 2:4].float()  # (V, B, 2)
    high = low + size
    shared = (torch.minimum(high[first], high[second]) - torch.maximum(low[first], low[second])).clamp(min=0).prod(2)
    areas = size.prod(2)  # (V, B)
    return (shared / (areas[first] + areas[second] - shared)).T


def missed(views: Sequence[View], plan: ViewPlan) -> int:
    """How many of the V views are not as the plan wants them."""
    boxes = [view.box for view in views]
    return sum(not _as_wanted(box, boxes[:number], plan) for number, box in enumerate(boxes))


# Where views lie


def frames_of(views: Sequence[View]) -> Tensor:
    """The views as numbers, (V, 5) int64: top, left, height and width in the image's pixels, and 1 where mirrored."""
    return torch.tensor([[*view.box, int(view.flip)] for view in views])


def views_of(frames: Tensor) -> tuple[View, ...]:
    """The views of frames (V, 5), on the CPU: the inverse of `frames_of`."""
    return tuple(View(Box(*box), bool(flip)) for *box, flip in frames.tolist())


def matched_grids(first: Tensor, second: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Where both of two views show the same points of their image: two grids (B, n, n, 2) for `grid_sample`.

    The points are evenly spread over the rectangle that frames (B, 5) share, its edges included, in the order of the
    image: x of each view runs backwards where it is mirrored.  Coordinates are those of `align_corners=False`.  Where
    two views share nothing all points lie outside of both, which `grid_sample` fills with zeros.

    Raises ValueError for fewer than two points a side.
    """
    if points < 2:
        raise ValueError(f"points: expected 2 or more a side, got {points}")
    steps = torch.linspace(0, 1, points, device=first.device)  # (n,)
    low = torch.maximum(first[:, :2], second[:, :2]).float()  # (B, 2): top, left
    high = torch.minimum(first[:, :2] + first[:, 2:4], second[:, :2] + second[:, 2:4]).float()  # (B, 2)
    apart = (high <= low).any(1)[:, None, None, None]  # (B, 1, 1, 1)
    places = low[:, :, None] + (high - low)[:, :, None] * steps  # (B, 2, n): rows, columns
    return _grid(places, first, apart), _grid(places, second, apart)


def _grid(places: Tensor, frames: Tensor, apart: Tensor) -> Tensor:
    """The rows and columns (B, 2, n) of the image in the coordinates of a view, as a grid (B, n, n, 2) of x, y."""
    start, length, flip = frames[:, :2, None], frames[:, 2:4, None], frames[:, 4, None]
    y, x = (2 * (places - start) / length - 1).unbind(1)  # (B, n) each
    x = torch.where(flip > 0, -x, x)
    n = places.shape[2]
    grid = torch.stack([x[:, None, :].expand(-1, n, -1), y[:, :, None].expand(-1, -1, n)], 3)  # (B, n, n, 2)
    return grid.masked_fill(apart, _OUTSIDE)
