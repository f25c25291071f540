"""Which images of a pool are trained on: so many of them, or a long tail of their categories (arXiv 2106.05967, 3.2).

Shape legend: N images, C categories.
"""

from collections.abc import Sequence

import torch


def pareto_sizes(categories: int, power: float) -> list[float]:
    """How large C categories are to each other, the largest first: (C + 1) / r ^ (1 / power) - 1 at rank r = 1 ... C.

    These are evenly spaced quantiles of the Pareto distribution that begins at 0.  With 1,000 categories of which the
    largest has 1,280 images and power 6 they make 118,000 images, as many as the paper's IN-118K-LT has.

    >>> [round(size, 3) for size in pareto_sizes(3, 1)]
    [3.0, 1.0, 0.333]
    """
    return [((categories + 1) / rank) ** (1 / power) - 1 for rank in range(1, categories + 1)]


def draw_images(count: int, images: int, rng: torch.Generator) -> list[int]:
    """Which of `count` images are among so many drawn: rising numbers.  Fewer of a seed are a subset of more.

    >>> draw_images(5, 9, torch.Generator().manual_seed(0))
    [0, 1, 2, 3, 4]
    """
    return sorted(torch.randperm(count, generator=rng)[:images].tolist())


def draw_long_tail(categories: Sequence[str], power: float, images: int | None, rng: torch.Generator) -> list[int]:
    """Which of N images make a long tail, where `categories` (N,) says of what category each is: rising numbers.

    Categories are ranked by chance.  Without `images` the first rank is as large as the largest category; with it so
    many images are taken in all.  A category has no more than it has, and at least one image as far as `images` allows.
    Fewer images of a seed are a subset of more.
    """
    members: dict[str, list[int]] = {}
    for index, name in enumerate(categories):
        members.setdefault(name, []).append(index)
    names = sorted(members)  # whatever order the images came in
    ranked = [names[i] for i in torch.randperm(len(names), generator=rng).tolist()]
    sizes, largest = pareto_sizes(len(ranked), power), max(map(len, members.values()))
    due = []  # for each image how large the first rank is when its turn has come
    for rank, (name, size) in enumerate(zip(ranked, sizes, strict=True)):
        order = torch.randperm(len(members[name]), generator=rng).tolist()
        due += [((i + 1) * sizes[0] / size if i else 0.0, rank, members[name][k]) for i, k in enumerate(order)]
    if images is None:
        return sorted(index for turn, _, index in due if turn <= largest * (1 + 1e-9))
    return sorted(index for _, _, index in sorted(due)[:images])


def draw_folds(count: int, folds: int, rng: torch.Generator) -> list[int]:
    """Which of so many folds each of `count` things is in, by chance; sizes differ by one at most.

    Raises ValueError for fewer things than folds.

    >>> sorted(draw_folds(5, 2, torch.Generator().manual_seed(0)))
    [0, 0, 0, 1, 1]
    """
    if not 2 <= folds <= count:
        raise ValueError(f"folds: expected 2 to {count}, one thing in each at least, got {folds}")
    places = torch.randperm(count, generator=rng)
    return (places * folds // count).tolist()
