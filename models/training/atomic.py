"""Files that are there completely or not at all."""

import hashlib
import os
from pathlib import Path


def publish(temporary: Path, path: Path) -> str:
    """Give a finished file its name once its bytes are on the disk; returns their SHA-256 in hex."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    temporary.replace(path)
    if os.name == "posix":  # the new name, too, is data: of the folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return digest


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`, replacing what was there in one step."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    publish(temporary, path)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
