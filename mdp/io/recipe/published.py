"""The published fine-tuning schedules of targets."""

from mdp.io.recipe.layers import Layer

# MMSegmentation's schedules for DeepLab-v3 (0.11 to 0.30); steps of VOC and COCO-Stuff are the authors', the others
# are the first schedule of the model zoo. Batches are GPUs x images: 4 x 4, Cityscapes 4 x 2.
_GENERAL: Layer = {"finetune": {}, "eval": {}}
SCHEDULES: dict[str, Layer] = {
    "voc": {"finetune": {"steps": 40000, "scale": [2048, 512], "validate_steps": 4000}, "eval": {"scale": [2048, 512]}},
    "ade20k": {
        "finetune": {"steps": 80000, "scale": [2048, 512], "validate_steps": 8000},
        "eval": {"scale": [2048, 512]},
    },
    "cityscapes": {
        "finetune": {
            "steps": 40000,
            "batch_size": 8,
            "crop": [512, 1024],
            "scale": [2048, 1024],
            "validate_steps": 4000,
        },
        "eval": {"scale": [2048, 1024]},
    },
    "coco_stuff": {
        "finetune": {"steps": 80000, "scale": [2048, 512], "validate_steps": 8000},
        "eval": {"scale": [2048, 512]},
    },
}


def schedule_layer(target: str) -> Layer:
    """The published fine-tuning schedule of a built-in target; the general one otherwise."""
    return SCHEDULES.get(target, _GENERAL)
