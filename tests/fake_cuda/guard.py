"""The device guard that torch asks for as soon as a tensor says it is on CUDA, where torch was built without CUDA.

It is three lines of C++, compiled once for a version of torch (some seconds) and kept in a temporary folder.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("guard.cpp")


def built_with_cuda() -> bool:
    """Whether this build of torch knows CUDA, with or without a device."""
    return bool(torch.backends.cuda.is_built())  # type: ignore[no-untyped-call]


def unavailable() -> str:
    """Why there is no guard to be had here; "" where there is one."""
    if built_with_cuda() or shutil.which("g++"):
        return ""
    return "torch was built without CUDA, and there is no g++ to compile a device guard for it"


@cache
def load_guard() -> None:
    """Makes torch believe in CUDA's device guard.  Raises CalledProcessError with the compiler's words."""
    if built_with_cuda():
        return
    library = _library()
    if not library.exists():
        _compile(library)
    ctypes.CDLL(str(library))


def _library() -> Path:
    """A file of this user's own, since a library runs whatever is in it."""
    folder = Path(tempfile.gettempdir()) / f"mdp-fake-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise PermissionError(f"{folder}: expected a folder that only you can write to; remove it")
    digest = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode() + torch.__file__.encode()).hexdigest()
    return folder / f"guard-{digest[:16]}.so"


def _compile(library: Path) -> None:
    """Compiles beside the library and renames, so that tests in several processes do not meet half a file."""
    torch_folder = Path(torch.__file__).parent
    unfinished = library.with_suffix(f".{os.getpid()}")
    subprocess.run(
        ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", str(SOURCE), "-o", str(unfinished),
         f"-L{torch_folder}/lib", "-lc10"],
        check=True,
    )  # fmt: skip
    os.replace(unfinished, library)
