"""Reading the files people give us: whatever is wrong with one is one clear line, and nothing waits for ever."""

import stat
from pathlib import Path

from mdp.io.errors import DatasetError, ResourceError

_BYTES = 2**30  # far above any photo or label map


def read_bytes(path: str, what: str) -> bytes:
    """A file's content.

    Raises DatasetError when it is missing, no plain file or absurdly large, ResourceError when it may not be read.
    """
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            raise DatasetError(f"{path}: expected a {what}, found a folder")
        if not stat.S_ISREG(found.st_mode):  # opening a named pipe would wait for ever
            raise DatasetError(f"{path}: expected a {what}, found a device or pipe")
        if found.st_size > _BYTES:
            raise DatasetError(f"{path}: {found.st_size} bytes; a {what} has at most {_BYTES}")
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{path}: the {what} is missing") from error
    except (PermissionError, MemoryError) as error:
        raise ResourceError(f"{path}: cannot be read: {error}") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
