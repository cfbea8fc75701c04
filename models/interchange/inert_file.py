"""Model files as data, by what their first bytes say: pickles, and both formats of torch.save.

A `.pt` is read by the same machine as a pickle, which allows less than `torch.load(weights_only=True)`: a storage must
have the bytes that it claims.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from models.interchange.inert_pickle import (
    DAMAGED,
    MAX_REFUSED,
    BoundedReader,
    Budget,
    InertMachine,
    ModelFileError,
    plain,
)
from models.interchange.inert_values import Storages, published_names, read_old_torch, state_dict_names
from models.training.atomic import sha256

MAX_FILE_BYTES = 4 << 30  # the extended model for anime, the largest known, has 1.05 GB
MAX_STRUCTURE_BYTES = 64 << 20  # the pickle in a .pt, which describes the tensors; 1 MB is much
MAX_MEMBERS = 20_000  # of a .pt, a storage each; g, g_ema, d and their optimisers are about 1,000
NAMES_SHOWN = 8  # in a message

_PART = 1 << 20  # bytes read at once
_MEMBER = b"PK\x01\x02"  # where an archive lists a member
_ZIP = b"PK\x03\x04"
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_ADVICE = {  # first part of a refused name -> whose files ask for it, and what can be done
    "dnnlib.tflib": "It is a StyleGAN file of the TensorFlow time: convert it with the publisher's own legacy.py, in a "
    "container that may run its code, and import the result.",
    "R3GAN": "It is an R3GAN snapshot: only StyleGAN2 can be imported.",
    "pg_modules": "It is a snapshot of Projected GAN or StyleGAN-XL: only StyleGAN2 can be imported.",
}


@dataclass(frozen=True)
class InertFile:
    """What is in a model file, as plain containers, tensors and inert records."""

    path: Path
    size: int  # bytes
    sha256: str
    kind: str  # "pickle", or "torch" for a .pt
    content: Any
    asked: dict[str, bool]  # every name that its pickle asks for -> whether it is on the list
    problem: str | None = None  # why it could not be read to its end; content is then None

    @property
    def refused(self) -> list[str]:
        """Names that are not on the list; they were neither looked up nor run."""
        return [name for name, allowed in self.asked.items() if not allowed]

    def require_sound(self) -> None:
        """Raise ModelFileError for a file that asks for more than a model file may, or could not be read."""
        if self.refused:
            shown = ", ".join(plain(name) for name in self.refused[:NAMES_SHOWN])
            rest = len(self.refused) - NAMES_SHOWN
            more = " and more" if len(self.refused) >= MAX_REFUSED else f" and {rest} more" if rest > 0 else ""
            are = "is" if len(self.refused) == 1 else "are"
            advice = [text for start, text in _ADVICE.items() if any(n.startswith(start) for n in self.refused)]
            told = advice or ["If you know the file, see docs/models.md for what can be imported; if not, delete it."]
            raise ModelFileError(
                f"{self.path} is refused: it asks for {shown}{more}, which {are} not on the list of what a model file "
                f"may use. Nothing in it was run. {told[0]}"
            )
        if self.problem is not None:
            raise ModelFileError(f"{self.path} cannot be read: {self.problem}")


def read_inert(path: Path) -> InertFile:
    """Read a model file without running anything in it.

    Raises ModelFileError for a file that is missing, too large, or of another kind. What it asks for, and whether it
    is damaged, is in the result: see `require_sound`.
    """
    try:
        if path.is_dir():
            raise ModelFileError(
                f"{path} is a folder, but not of an export of ours with G_ema.safetensors: give a file"
            )
        if not path.is_file():
            raise ModelFileError(f"there is no file {path}")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFileError(f"{path} has {size:,} bytes, and at most {MAX_FILE_BYTES >> 30} GiB are read")
        with path.open("rb") as file:
            start = file.read(len(_OLD_TORCH))
            file.seek(0)
            budget = Budget(size)
            kind = "torch" if start.startswith((_ZIP, _OLD_TORCH)) else "pickle"
            read = _read_zip if start.startswith(_ZIP) else _read_old if kind == "torch" else _read_pickle
            content, problem = None, None
            try:
                content = read(file, size, budget)
            except ModelFileError as error:
                problem = _explain(start, str(error))
        return InertFile(path, size, sha256(path), kind, content, budget.asked, problem)
    except OSError as error:
        raise ModelFileError(f"{path} could not be read ({error})") from error


def _explain(start: bytes, problem: str) -> str:
    if start.startswith(b"\x80"):
        return problem
    if start[8:9] == b"{":
        return "it is a .safetensors file, not a StyleGAN2 .pkl or .pt"
    if start.startswith(_ZIP):
        return f"{problem}. Only zip files that torch.save wrote are read"
    return "it is neither a pickle nor a file of torch.save: only StyleGAN2 .pkl and .pt files can be imported"


def _read_pickle(file: BinaryIO, size: int, budget: Budget) -> Any:
    return InertMachine(published_names(budget), budget).run(BoundedReader(file, size))


def _read_old(file: BinaryIO, size: int, budget: Budget) -> Any:
    return read_old_torch(file, size, budget, state_dict_names(budget))


def _read_zip(file: BinaryIO, size: int, budget: Budget) -> Any:
    """torch.save since 1.6: a zip archive, not compressed, of a pickle and one member per storage."""
    _require_few_members(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            _check_members(members, size)
            (pickled,) = [name for name in members if name.endswith("/data.pkl")]
            folder = pickled.removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in members and members[order].file_size < 16 and archive.read(order) != b"little":
                raise ModelFileError("its tensors were written by a machine with another order of bytes")
            storages = Storages(budget, lambda key: archive.read(f"{folder}data/{key}"))
            machine = InertMachine(state_dict_names(budget), budget, storages.resolve)
            return machine.run(io.BytesIO(archive.read(pickled)))
    except ModelFileError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, *DAMAGED) as error:
        raise ModelFileError(f"its archive is damaged, cut off, or not of torch.save ({plain(str(error))})") from error


def _require_few_members(file: BinaryIO) -> None:
    """Raise ModelFileError for an archive that might list too many members, before zipfile makes an object of each.

    Their marks are counted, wherever they are: what the end of an archive says of their number may be a lie.
    """
    count, end = 0, b""
    while part := file.read(_PART):
        count += (end + part).count(_MEMBER)
        end = part[1 - len(_MEMBER) :]
        if count > MAX_MEMBERS:
            raise ModelFileError(f"its archive has more than {MAX_MEMBERS:,} members")
    file.seek(0)


def _check_members(members: Mapping[str, zipfile.ZipInfo], size: int) -> None:
    """Nothing in the archive may grow when it is read."""
    if any("/code/" in name for name in members):
        raise ModelFileError("it is a TorchScript program, not a file of weights")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise ModelFileError("its archive is compressed, which torch.save never does")
    if sum(member.file_size for member in members.values()) > size:
        raise ModelFileError("its archive announces more bytes than it has")
    pickles = [member.file_size for name, member in members.items() if name.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0] > MAX_STRUCTURE_BYTES:
        raise ModelFileError("its archive has no data.pkl of a sensible size, so torch.save did not write it")
