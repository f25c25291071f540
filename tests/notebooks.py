"""Notebooks run in a kernel of their own, and what they give as it is kept beside them.

    python -m tests.notebooks        # runs those of examples/ and stores their outputs

Outputs are stored so that people see them on a code host.  Cells tagged `varies` give other digits on other machines;
what a cell tagged `page` shows is large, and only a running notebook can show it.
"""

import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SECONDS = 400  # a cell may take, on a busy machine
STORED = ("text/plain", "image/png")


def tags(cell: Any) -> list[str]:
    """A cell's tags."""
    found: list[str] = cell.metadata.get("tags", [])
    return found


def executed(path: Path, folder: Path, *, forked: bool = False, brief: Mapping[str, str] = {}) -> Any:
    """The notebook after a run in that folder; an exception in a cell is raised.

    `forked`: in a kernel that need not import torch again (tests/preloaded.py).  `brief`: what is run in the place of
    words that stand once in cells whose digits vary.
    """
    nbformat = pytest.importorskip("nbformat", reason="nbclient is missing: pip install -e '.[test]'")
    client = pytest.importorskip("nbclient", reason="nbclient is missing: pip install -e '.[test]'")
    traitlets = pytest.importorskip("traitlets.config", reason="nbclient is missing: pip install -e '.[test]'")
    pytest.importorskip("ipykernel", reason="ipykernel is missing: pip install -e '.[test]'")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    varying = [cell for cell in notebook.cells if "varies" in tags(cell)]
    for words, others in brief.items():
        assert sum(cell.source.count(words) for cell in varying) == 1, f"{path.name}: {words}"
        for cell in varying:
            cell.source = cell.source.replace(words, others)
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    # a path of its own, which has to be short: the kernel is spoken to through sockets in it
    with tempfile.TemporaryDirectory(prefix="nb") as own, pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, own)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        if forked:
            home = Path(own, "kernels", "forked")
            home.mkdir(parents=True)
            command = [sys.executable, "-m", "tests.forked_kernel", "{connection_file}"]
            spec = {"argv": command, "display_name": "forked", "language": "python"}
            (home / "kernel.json").write_text(json.dumps(spec))
        sockets = {"transport": "ipc", "connection_file": f"{own}/kernel.json"}  # files: no port is opened
        client.NotebookClient(
            notebook, timeout=SECONDS, kernel_name="forked" if forked else "python3",
            resources={"metadata": {"path": str(folder)}}, config=traitlets.Config({"KernelManager": sockets}),
        ).execute()  # fmt: skip
    return notebook


def outputs(cell: Any) -> list[dict[str, Any]]:
    """A cell's outputs in the form that is stored: text and pictures, texts that follow each other as one."""
    kept: list[dict[str, Any]] = []
    for output in [] if "page" in tags(cell) else cell.outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1]["text"] += output.text
        elif output.output_type == "stream":
            kept.append({"output_type": "stream", "name": output.name, "text": output.text})
        else:
            data = {kind: output.data[kind] for kind in STORED if kind in output.data}
            entry = {"output_type": output.output_type, "metadata": {}, "data": data}
            kept.append(entry | ({"execution_count": cell.execution_count} if "execution_count" in output else {}))
    return kept


def picture(output: dict[str, Any]) -> np.ndarray | None:
    """The picture of an output, (H, W, 3)."""
    words = output.get("data", {}).get("image/png")
    return None if words is None else np.array(Image.open(io.BytesIO(base64.b64decode(words))).convert("RGB"))


def main() -> None:
    import nbformat  # noqa: PLC0415 - an extra

    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.outputs = [nbformat.from_dict(output) for output in outputs(cell)]
            cell.metadata.pop("execution", None)  # when it ran
        nbformat.write(notebook, path)
        sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
