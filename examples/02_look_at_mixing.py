"""What region and pixel mixing make of images from different datasets; writes mixing.png into the working folder.

Top row: two images of shapes-coarse and two of shapes-fine.  Middle: region mixing (eq. 5).  Bottom: pixel mixing
(eq. 6).  Below each photo row, its labels in the colours of the union.
"""

from pathlib import Path

import numpy as np
import torch

from mdp.core import LabelUnion, MixSettings, draw_plan, generator, mix
from mdp.core.batches import Batch
from mdp.io.datasets import load
from mdp.io.datasets._dataset import labels_of, open_split
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import write_rgb

datasets = [load("shapes-coarse"), load("shapes-fine")]
union = LabelUnion([dataset.labels for dataset in datasets])
images, labels = [], []
for dataset in datasets:
    samples, line = open_split(dataset, Path("."), "train")
    print(line)
    for sample in samples[:2]:
        rgb, raw = dataset.read(sample)
        images.append(torch.from_numpy(rgb).permute(2, 0, 1).float() / 255)
        labels.append(labels_of(union, sample, raw, dataset.source).long())
batch = Batch(torch.stack(images), torch.stack(labels))  # (4, 3, 96, 96), (4, 96, 96)

palette = np.array(voc_colormap(union.size + 1)[1:], dtype=np.uint8)
rows = []
for settings in (
    MixSettings(),
    MixSettings(region=True, probability=1),
    MixSettings(pixel=True, probability=1),
):
    plan = draw_plan(generator(0, "mixing"), settings, *batch.labels.shape)
    blend = mix(batch, plan)
    photos = (blend.images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)  # (4, 96, 96, 3)
    share = blend.share.numpy()[:, None, None, None]
    colors = share * palette[blend.first.numpy()] + (1 - share) * palette[blend.second.numpy()]
    rows += [np.hstack(list(photos)), np.hstack(list(colors.astype(np.uint8)))]
write_rgb(Path("mixing.png"), np.vstack(rows))
print("wrote mixing.png")
