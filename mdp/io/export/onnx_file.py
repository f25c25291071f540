"""A network as an ONNX file, with what it is and expects in the file's metadata: of any batch, height and width, or
of one size of image.

The extra `onnx` brings what writes and runs such files.
"""

import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.export.tracing import HINT, traced
from mdp.io.export.windows import cuts_windows

OPSET = 18
INPUT = "images"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def expect_onnx() -> None:
    """Raises RecipeError, naming the extra, unless the libraries are there."""
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RecipeError(
                f"--to onnx: the library {name} cannot be imported ({error}); install the extra: "
                "pip install 'mdp-segmentation[onnx]'"
            ) from error


def onnx_bytes(
    network: nn.Module,
    output: str,
    texts: Mapping[str, str],
    channels: int = 3,
    size: tuple[int, int] | None = None,
) -> bytes:
    """The file: from normalised images (B, K, H, W), K `channels`, to the network's one output; `size` None: any H, W.

    The same bytes for the same network; `texts` go into the metadata.  Raises CheckpointError when torch cannot convert
    the network.
    """
    _replace_pools_(network.eval())
    sizes = {INPUT: {0: "batch", 2: "height", 3: "width"}}
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # torch's own remarks are not for our users
            warnings.simplefilter("ignore")
            # what torch.onnx traces itself is of any size, and knows nothing of windows
            first = traced(network, channels, size) if size or cuts_windows(network) else network
            program = torch.onnx.export(
                first,
                (torch.zeros(3, channels, 64, 96),),  # torch.export would take a size of 1 for a fixed one
                input_names=[INPUT],
                output_names=[output],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=sizes,
                external_data=False,
                verbose=False,
                custom_translation_table=_translations(),
            )
    except Exception as error:  # whatever a network does that cannot be traced or converted
        reason, hint = str(error).strip().splitlines()[0], "" if size else f"; {HINT}"
        raise CheckpointError(
            f"--to onnx: torch {torch.__version__} cannot convert the network: {reason}{hint}"
        ) from error
    assert program is not None
    model = program.model_proto
    _forget_traces_(model)
    for key in sorted(texts):
        model.metadata_props.add(key=key, value=texts[key])
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class PoolByProducts(nn.Module):
    """Adaptive average pooling to a grid of `side` x `side`, as two products with matrices.

    ONNX has no such pooling for images of any size, and what torch's converter makes of it does not run.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        """(B, F, h, w) -> (B, F, side, side)."""
        return self._shares(maps.shape[2]) @ maps @ self._shares(maps.shape[3]).mT

    def _shares(self, length: int) -> Tensor:
        """The share of each place in each cell, (side, length): cells may overlap by a place."""
        cells = torch.arange(self.side)[:, None]
        first, end = cells * length // self.side, ((cells + 1) * length + self.side - 1) // self.side
        places = torch.arange(length)
        inside = (places >= first) & (places < end)
        return inside.float() / (end - first)


def _replace_pools_(network: nn.Module) -> None:
    for part in list(network.modules()):
        for name, child in part.named_children():
            side = child.output_size if isinstance(child, nn.AdaptiveAvgPool2d) else 1
            if isinstance(side, int) and side > 1:
                setattr(part, name, PoolByProducts(side))


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """A correction of torch's converter, which takes a copy into a larger tensor for one of the same shape."""
    opset: Any = importlib.import_module("onnxscript").opset18

    def copied(into: Any, source: Any, non_blocking: bool = False) -> Any:
        return opset.Expand(opset.CastLike(source, into), opset.Shape(into))

    copied.__annotations__.clear()  # onnxscript would take them for the types of tensors
    return {torch.ops.aten.copy.default: copied}


def _forget_traces_(model: Any) -> None:
    """Takes out what the converter notes of the Python that it read: paths of this machine among it."""
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info,
                 *model.graph.initializer, *model.functions):  # fmt: skip
        del part.metadata_props[:]
        part.doc_string = ""
    del model.metadata_props[:]


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function, by onnxruntime on the CPU."""
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])

    return run
