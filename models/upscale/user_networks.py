"""Networks that a user brings: ESRGAN and Real-ESRGAN files as they are passed around, read without trusting them.

Four ways of naming the same parts are known: Real-ESRGAN's (``body.0.rdb1.conv1``), the first ESRGAN's
(``model.1.sub.0.RDB1.conv1.0``), BasicSR's (``RRDB_trunk.0.RDB1.conv1``), and the compact network's (``body.0``). How
deep, how wide and how much it enlarges is found from the names and shapes of the tensors; every tensor must then be
there and none may be left over.

A ``.pth`` is a pickle, which can run anything when it is read carelessly. Here torch reads it with ``weights_only``: it
builds tensors and plain containers, and refuses all else before it is looked up. What that still allows, sizes far
beyond the file's own, is checked before torch sees the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.upscale.esrgan import CompactNet, RRDBNet, compare_shapes, name_some
from models.upscale.network import UpscaleNetwork

SUFFIXES = (".safetensors", ".pth", ".pt")
WRAPPERS = ("params_ema", "params", "state_dict", "model")  # trainers keep the network below these; the first counts
SUPPORTED = (
    "ESRGAN and Real-ESRGAN (RRDBNet, in the namings of ESRGAN, BasicSR and Real-ESRGAN) and Real-ESRGAN's compact "
    "network (SRVGGNetCompact with PReLU), for RGB"
)

MAX_BYTES = 512 << 20  # RRDBNet of 23 blocks has 67 MB, twice that with its average
MAX_STRUCTURE_BYTES = 4 << 20  # what describes the tensors: 23 blocks need 0.1 MB
MAX_TENSORS = 4_000  # 23 blocks have 702
MAX_DOUBLINGS = 3
ALLOWANCE = 1 << 24  # whole numbers in an old pickle that are not sizes: counters, strides
WHOLE_NUMBERS = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"))  # of a pickle
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

UNREADABLE = (  # whatever a crafted or damaged file can make torch and safetensors raise
    pickle.UnpicklingError,
    SafetensorError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    ImportError,
    MemoryError,
    OverflowError,
    struct.error,
)


class UnreadableNetworkError(ValueError):
    """A user's file cannot be used as a network; the message names the file and says what to do."""


def load_user_network(path: Path) -> UpscaleNetwork:
    """Read a network of the ESRGAN family from a .safetensors, .pth or .pt file.

    Returns it in evaluation mode, float32 (whatever the file holds), on the CPU, without gradients.

    Raises `UnreadableNetworkError` for a file that is missing, too large, damaged or holds more than tensors (nothing
    in it is run), for another architecture, for missing or surplus tensors, and for weights that are not finite.
    """
    path = Path(path)
    try:
        tensors = _read_tensors(path)
        network, names = _find_network(tensors)
        expected = {names[ours]: tuple(value.shape) for ours, value in network.state_dict().items()}
        complaints = compare_shapes(expected, tensors)
        if complaints:
            raise UnreadableNetworkError(
                f"its tensors are not those of {_describe(network)}, which it is most like: "
                f"{'; '.join(complaints[:4])}. Supported: {SUPPORTED}"
            )
        weights = {ours: _convert(theirs, tensors[theirs]) for ours, theirs in names.items()}
        network.load_state_dict(weights, assign=True)
    except UnreadableNetworkError as error:
        raise UnreadableNetworkError(f"{path} cannot be used as a network: {error}") from error
    return network.eval().requires_grad_(False)


# The file


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The network's tensors by their names in the file, all of them dense, not empty and no larger than the file."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnreadableNetworkError(f"its name must end in {', '.join(SUFFIXES)}, not {suffix or 'nothing'}")
    content = _read_bytes(path)
    loaded = _read_safetensors(content) if suffix == ".safetensors" else _read_pickle(content)
    tensors = _unwrap(loaded)
    if not tensors:
        raise UnreadableNetworkError("it holds no tensors")
    if len(tensors) > MAX_TENSORS:
        raise UnreadableNetworkError(f"it holds {len(tensors):,} tensors, more than {MAX_TENSORS:,}")
    # A view can repeat one number for ever: converting it would take memory that the file never had.
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > len(content):
        raise UnreadableNetworkError(f"its tensors would take {total:,} bytes, but it has {len(content):,}")
    return tensors


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UnreadableNetworkError("there is no such file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableNetworkError(f"it could not be read ({error})") from error
    if len(content) > MAX_BYTES:
        raise UnreadableNetworkError(f"it is larger than {MAX_BYTES >> 20} MiB, and no network of this family is")
    return content


def _read_safetensors(content: bytes) -> object:
    if int.from_bytes(content[:8], "little") > MAX_STRUCTURE_BYTES:  # the header's length comes first
        raise UnreadableNetworkError("it is no .safetensors file, or its header is too large")
    try:
        return safetensors.torch.load(content)
    except UNREADABLE as error:
        raise UnreadableNetworkError(f"it is no .safetensors file, or damaged ({_first_line(error)})") from error


def _read_pickle(content: bytes) -> object:
    if content.startswith(b"PK\x03\x04"):
        _check_archive(content)
    else:
        _check_old_pickle(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        what = f"it asks for {wanted[1]}" if wanted else _first_line(error)
        raise UnreadableNetworkError(f"it holds more than tensors ({what}). {_how_to_convert()}") from error
    except UNREADABLE as error:
        raise UnreadableNetworkError(f"torch cannot read it ({_first_line(error)}). {_how_to_convert()}") from error


def _check_archive(content: bytes) -> None:
    """A .pth since torch 1.6 is a zip archive, not compressed: nothing in it may grow when it is read."""
    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except (zipfile.BadZipFile, ValueError, OSError, struct.error, NotImplementedError) as error:
        raise UnreadableNetworkError(f"it is damaged or cut off ({error}): get it once more") from error
    if any("/code/" in member.filename for member in members):
        raise UnreadableNetworkError(f"it is a TorchScript program, not a file of weights. {_how_to_convert()}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnreadableNetworkError("it is compressed, which torch.save never does")
    if sum(member.file_size for member in members) > len(content):
        raise UnreadableNetworkError("it announces more bytes than it has")
    if any(member.filename.endswith(".pkl") and member.file_size > MAX_STRUCTURE_BYTES for member in members):
        raise UnreadableNetworkError(f"its description is larger than {MAX_STRUCTURE_BYTES >> 20} MiB")


def _check_old_pickle(content: bytes) -> None:
    """A .pth of older torch: five pickles and then the numbers. torch makes room for what the fourth one announces."""
    stream = io.BytesIO(content)
    announced = 0
    try:
        for k in range(5):
            for opcode, argument, position in pickletools.genops(stream):
                if k == 3 and isinstance(argument, int) and opcode.name in WHOLE_NUMBERS:
                    announced += abs(argument)
                if position is not None and position > MAX_STRUCTURE_BYTES:
                    raise UnreadableNetworkError(f"its description is larger than {MAX_STRUCTURE_BYTES >> 20} MiB")
    except UnreadableNetworkError:
        raise
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise UnreadableNetworkError(
            f"it is damaged, or not what torch.save writes ({_first_line(error)}). {_how_to_convert()}"
        ) from error
    if announced > 2 * len(content) + ALLOWANCE:
        raise UnreadableNetworkError("it announces more numbers than it has")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _how_to_convert() -> str:
    return (
        "Nothing in it was run. Ask its author for a .safetensors file. If you trust it, convert it where it can do no "
        'harm (a container without network or your data): python -c "import torch, safetensors.torch as s; '
        "d = torch.load('in.pth', map_location='cpu', weights_only=False); "
        "d = d.get('params_ema', d.get('params', d)); "
        "s.save_file({k: v.clone().contiguous() for k, v in d.items()}, 'out.safetensors')\""
    )


def _unwrap(loaded: object) -> dict[str, Tensor]:
    for _ in range(3):  # {"model": {"params": {...}}} and the like
        if isinstance(loaded, dict):
            loaded = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(loaded, dict):
        raise UnreadableNetworkError(f"it holds a {type(loaded).__name__}, not tensors by name")
    tensors: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if not isinstance(name, str):
            raise UnreadableNetworkError("its tensors have no names")
        if type(value) not in (Tensor, nn.Parameter):
            raise UnreadableNetworkError(f"{name[:80]} is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.dtype not in DTYPES or value.device.type != "cpu":
            raise UnreadableNetworkError(
                f"{name[:80]} is stored as {value.dtype}, {value.layout}: only dense float16, bfloat16, float32 and "
                "float64 are read, so use a file that is not quantised"
            )
        if value.numel() == 0:
            raise UnreadableNetworkError(f"{name[:80]} is empty")
        tensors[name] = value
    prefix = "module."  # torch's wrapper for several GPUs leaves it
    if tensors and all(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _convert(name: str, tensor: Tensor) -> Tensor:
    converted = tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(converted).all():
        raise UnreadableNetworkError(f"{name} holds values that are not finite: the training went wrong, or the file")
    return converted


# The architecture


@dataclass(frozen=True)
class _Naming:
    """How a family of files calls the parts of RRDBNet."""

    first: str  # the first convolution
    group: str  # a pattern: the number of the residual group
    doubling: str  # a pattern: something that differs for each doubling of the size
    rename: Callable[[str, int, int], str]  # our name of a part, number of groups, of doublings -> theirs


def _keep(name: str, blocks: int, doublings: int) -> str:
    return name


def _rename_basicsr(name: str, blocks: int, doublings: int) -> str:
    name = re.sub(r"^body\.(\d+)\.rdb", r"RRDB_trunk.\1.RDB", name)
    for ours, theirs in (("conv_body", "trunk_conv"), ("conv_up", "upconv"), ("conv_hr", "HRconv")):
        name = re.sub(f"^{ours}", theirs, name)
    return name


def _rename_first_esrgan(name: str, blocks: int, doublings: int) -> str:
    """Parts are numbered as they stood in a row; enlargements and rectifiers have numbers, but no weights."""
    part, _, kind = name.rpartition(".")
    tail = {f"conv_up{k}": 3 * k for k in range(1, doublings + 1)}
    tail |= {"conv_first": 0, "conv_hr": 3 * doublings + 2, "conv_last": 3 * doublings + 4}
    if part in tail:
        return f"model.{tail[part]}.{kind}"
    if part == "conv_body":
        return f"model.1.sub.{blocks}.{kind}"
    return re.sub(r"^body\.(\d+)\.rdb(.*)$", r"model.1.sub.\1.RDB\2", part) + f".0.{kind}"


NAMINGS = (
    _Naming("conv_first", r"body\.(\d+)\.rdb1\.", r"(conv_up\d+)\.weight", _keep),
    _Naming("conv_first", r"RRDB_trunk\.(\d+)\.RDB1\.", r"(upconv\d+)\.weight", _rename_basicsr),
    # After the two convolutions of every tail, numbered 2 and 4 at least, each doubling moves them on by three.
    _Naming("model.0", r"model\.1\.sub\.(\d+)\.RDB1\.", r"model\.(3|6|9)\.weight", _rename_first_esrgan),
)


def _find_network(tensors: Mapping[str, Tensor]) -> tuple[UpscaleNetwork, dict[str, str]]:
    """The network that the tensors look like, without memory for its weights, and for each parameter its name there."""
    for naming in NAMINGS:
        groups = _find_all(naming.group, tensors)
        if groups and f"{naming.first}.weight" in tensors:
            return _find_rrdb(tensors, naming, len(groups))
    if "body.0.weight" in tensors and not any(".rdb" in name for name in tensors):
        network = _find_compact(tensors)
        return network, {name: name for name in network.state_dict()}
    raise UnreadableNetworkError(
        f"its architecture is not known here; its tensors are called {name_some(sorted(tensors), 3)}. "
        f"Supported: {SUPPORTED}"
    )


def _find_rrdb(tensors: Mapping[str, Tensor], naming: _Naming, blocks: int) -> tuple[UpscaleNetwork, dict[str, str]]:
    doublings = min(len(_find_all(naming.doubling, tensors)), MAX_DOUBLINGS)
    features, inputs = _shape_of(tensors, f"{naming.first}.weight")
    unshuffle = math.isqrt(inputs // 3)
    if inputs != 3 * unshuffle**2 or unshuffle not in (1, 2, 4):
        raise UnreadableNetworkError(
            f"it takes {inputs} channels (RGB has 3, 12 or 48 when folded). Supported: {SUPPORTED}"
        )
    growth, _ = _shape_of(tensors, naming.rename("body.0.rdb1.conv1.weight", blocks, doublings))
    if 2**doublings % unshuffle:
        raise UnreadableNetworkError(f"it folds its input by {unshuffle}, but enlarges only by {2**doublings}")
    with torch.device("meta"):
        network = RRDBNet(features, blocks, growth, doublings, unshuffle)
    return network, {name: naming.rename(name, blocks, doublings) for name in network.state_dict()}


def _find_compact(tensors: Mapping[str, Tensor]) -> CompactNet:
    weights = [tensor for name, tensor in tensors.items() if re.fullmatch(r"body\.\d+\.weight", name)]
    convolutions = sum(tensor.ndim == 4 for tensor in weights)
    if convolutions == len(weights):
        raise UnreadableNetworkError(
            "its rectifiers have no weights, so that it cannot be told which kind they are: only PReLU is supported"
        )
    if convolutions < 2:
        raise UnreadableNetworkError(f"it has fewer than two convolutions. Supported: {SUPPORTED}")
    features, inputs = _shape_of(tensors, "body.0.weight")
    outputs, _ = _shape_of(tensors, f"body.{2 * (convolutions - 1)}.weight")
    factor = math.isqrt(outputs // 3)
    if inputs != 3 or outputs != 3 * factor**2 or not 1 <= factor <= 2**MAX_DOUBLINGS:
        raise UnreadableNetworkError(
            f"its {inputs} channels become {outputs}, which is no enlargement of RGB. Supported: {SUPPORTED}"
        )
    with torch.device("meta"):
        return CompactNet(features, convolutions - 2, factor)


def _find_all(pattern: str, tensors: Mapping[str, Tensor]) -> set[str]:
    return {found[1] for name in tensors if (found := re.match(pattern, name))}


def _shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """Outputs and inputs of a convolution."""
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != 4:
        raise UnreadableNetworkError(
            f"{name} is {'missing' if tensor is None else 'no convolution'}. Supported: {SUPPORTED}"
        )
    return tensor.shape[0], tensor.shape[1]


def _describe(network: UpscaleNetwork) -> str:
    kind = "RRDBNet" if isinstance(network, RRDBNet) else "the compact network"
    return f"{kind} ({network.scale}x, {sum(1 for name in network.state_dict() if name.endswith('bias'))} convolutions)"
