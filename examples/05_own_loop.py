"""Prototype contrast over two datasets in a training loop of your own, with a backbone of your own.

The loop is plain PyTorch; the lines that it gets from mdp are marked.  The datasets are made here: both have plain and
striped things on a ground, and "b" tells red from blue ones.  Nothing says that a class of one is a class of the other.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core import LabelSpace, PrototypeLearner, class_similarity, generator

rng = generator(0, "own loop")
spaces = [
    LabelSpace(name="a", classes=("ground", "plain", "striped")),
    LabelSpace(name="b", classes=("ground", "red plain", "blue plain", "red striped", "blue striped")),
]


def draw(count: int) -> tuple[Tensor, Tensor, list[str]]:
    """Images (B, 3, 32, 32), label maps (B, 32, 32) as a file has them, 255 at borders, and whose they are."""
    images, labels = 0.2 * torch.randn(count, 3, 32, 32, generator=rng), torch.zeros(count, 32, 32, dtype=torch.long)
    names = ["a" if index % 2 == 0 else "b" for index in range(count)]
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    for index, name in enumerate(names):
        striped, blue, top, left = (int(torch.randint(high, (), generator=rng)) for high in (2, 2, 16, 16))
        thing = (y >= top) & (y < top + 16) & (x >= left) & (x < left + 16)
        images[index, 2 * blue] += thing * (2 * (y % 4 < 2) if striped else 1)
        labels[index][thing] = 1 + striped if name == "a" else 1 + 2 * striped + blue
    labels[:, :2] = 255
    return images, labels, names


torch.manual_seed(0)
backbone = nn.Sequential(  # any network that gives a map of features
    nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(),
    nn.Conv2d(32, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(32, 16, 1),
)  # fmt: skip
optimizer = torch.optim.Adam(backbone.parameters(), lr=0.005)
learner = PrototypeLearner(spaces, channels=16, bank_batches=10)  # mdp


@torch.no_grad()
def accuracy() -> dict[str, float]:
    """How many cells have the nearest prototype of their dataset's classes right."""
    images, raw, names = draw(32)
    labels = learner.labels(raw, names)[:, 2::4, 2::4]
    scores = class_similarity(F.normalize(backbone(images), dim=1), learner.prototypes)  # (B, C, 8, 8)
    found = {}
    for space in spaces:
        own, own_classes = [name == space.name for name in names], learner.union.classes_of(space.name)
        guess = scores[own][:, own_classes].argmax(1) + own_classes.start
        things = labels[own] > own_classes.start  # what is no ground
        found[space.name] = float((guess == labels[own])[things].float().mean())
    return found


for step in range(80):
    images, raw, names = draw(16)
    features = backbone(images)  # (16, 16, 8, 8)
    loss = learner.loss_(features, learner.labels(raw, names))  # mdp; add a loss of your own task to it
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == 0:
        first, before = loss.item(), accuracy()

after = accuracy()
print(f"loss {first:.2f} -> {loss.item():.2f} over {learner.steps} steps")
for space in spaces:
    print(f"{space.name}: things with the right prototype {before[space.name]:.0%} -> {after[space.name]:.0%}")

vectors, names_of_classes = learner.prototypes.vectors, learner.union.names
nearest = (vectors[1:3] @ vectors[4:].T).argmax(1)
for name, best in zip(names_of_classes[1:3], nearest.tolist(), strict=True):
    print(f"{name} is most like {names_of_classes[4 + best]}")

torch.save({"backbone": backbone.state_dict(), "learner": learner.state_dict()}, "own_loop.pt")
again = PrototypeLearner(spaces, channels=16, bank_batches=10)
again.load_state_dict(torch.load("own_loop.pt")["learner"])
print("resumed after step", again.steps)
