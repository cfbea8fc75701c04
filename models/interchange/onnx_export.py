"""Generators as ONNX files, and the check that onnxruntime makes the pictures that torch makes.

A file holds everything it needs. Inputs: `z`, float32 (batch, z_dim); `psi`, a float32 scalar, where the network has
styles (truncation: 1 as trained, 0 the mean picture); `label`, float32 (batch, labels), where it is conditional.
Output: `images`, float32 (batch, channels, height, width), about -1..1 and not clamped. Any batch goes. Noise is the
network's fixed maps, and all is computed in float32. The file's `metadata_props` say so, too.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.gan.latents import draw_latents
from models.interchange.labels import take_turns
from models.sampling.generator import STYLE_PSI, LoadedGenerator, StyleNetwork, load_generator
from models.training.atomic import publish

OPSET = 18  # what torch's exporter writes without converting; onnxruntime reads it since 1.14 (2023)
MAX_BYTES = 2**31 - 1  # of a protocol buffer: a larger network would need a second file beside it
LIMIT = 1e-3  # largest difference between the two, of pictures in -1..1: an eighth of a level of 8 bits
BATCHES = (1, 2, 3)  # pictures per call of the check, in turns: nothing may depend on the batch of the export
COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}


class OnnxError(RuntimeError):
    """An ONNX file that cannot be written or is not what torch computes; the message says what to do."""


@dataclass(frozen=True)
class OnnxCheck:
    """How far onnxruntime's pictures are from torch's."""

    pictures: int  # compared
    largest: float  # absolute difference of any value, pictures being about -1..1
    runtime: str  # such as "onnxruntime 1.32.0"


class TracedGenerator(nn.Module):
    """What becomes the graph: everything between the inputs and the pictures, without checks and settings."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, z: torch.Tensor, psi: torch.Tensor | None = None, label: torch.Tensor | None = None
    ) -> torch.Tensor:
        network = self.generator
        if not isinstance(network, StyleNetwork):
            images: torch.Tensor = network(z) if label is None else network(z, label)
            return images
        ws = network.broadcast(network.mapping(z, label))
        if psi is not None:  # not network.truncate: it leaves the mean out at psi 1, which a graph cannot decide
            mean = network.get_buffer("w_mean")
            ws = mean + (ws - mean) * psi
        painted: torch.Tensor = network.synthesis(ws, noise="const")
        return painted


def load_in_float32(run_or_snapshot: Path) -> LoadedGenerator:
    """The averaged generator of a run or snapshot as it is exported: on the CPU, all maps in float32.

    Raises RunError or SnapshotError, see `load_generator`.
    """
    loaded = load_generator(run_or_snapshot)
    network: Any = loaded.network
    if hasattr(network, "half_dtype"):
        network.half_dtype = None
    return loaded


def export_onnx(generator: LoadedGenerator, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write the generator to `path`, all of it or nothing. It must be on the CPU, in eval mode and in float32.

    notes: further metadata_props, such as where the model comes from.
    Raises OnnxError without the packages that it takes, or if the file would be larger than ONNX files can be.
    """
    onnx = _need("onnx")
    _need("onnxscript")
    size = sum(tensor.numel() * tensor.element_size() for tensor in generator.network.state_dict().values())
    if size > MAX_BYTES:
        raise OnnxError(
            f"the network has {size / 1e9:.1f} GB of weights, and an ONNX file at most 2: it stays as it is"
        )
    example = {name: torch.from_numpy(rows) for name, rows in make_inputs(generator, (0, 1)).items()}
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} if rows.ndim else None for name, rows in example.items()}
    with _quiet_exporter(), torch.no_grad():
        # strict: read from the code's own bytes; else `len(ws)` would fix the batch at the example's
        graph = torch.export.export(
            TracedGenerator(generator.network).eval(), (), example, dynamic_shapes=shapes, strict=True
        )
        program = torch.onnx.export(
            graph,
            input_names=list(example),
            output_names=["images"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise OnnxError("torch's exporter returned nothing")
    model = program.model_proto
    _name_batch(model)
    _strip(model)
    props = {**describe_model(generator), **(notes or {})}
    onnx.helper.set_model_props(model, props)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def describe_model(generator: LoadedGenerator) -> dict[str, str]:
    """The metadata_props: what goes in, what comes out, and of which data the network was made."""
    inputs = [f"z: float32 (batch, {generator.z_dim}), independent standard normal values"]
    if generator.has_styles:
        inputs.append(f"psi: float32 scalar, truncation; 1 as trained, 0 the mean picture, {STYLE_PSI} usual")
    if generator.config.labels:
        inputs.append(f"label: float32 (batch, {generator.config.labels})")
    shape = f"(batch, {generator.channels}, {generator.height}, {generator.width})"
    return {
        "inputs": "; ".join(inputs),
        "outputs": f"images: float32 {shape}, {COLOURS[generator.channels]}, about -1..1 and not clamped: "
        "0..255 is (clip(images, -1, 1) + 1) * 127.5, rounded",
        "colours": COLOURS[generator.channels],
        "range": "-1..1",
        "algorithm": generator.config.algorithm.name,
        "nimg": str(generator.nimg),
        "dataset": str(generator.dataset),
        "dataset_digest": generator.dataset.digest,
    }


def make_inputs(generator: LoadedGenerator, seeds: Sequence[int], psi: float | None = None) -> dict[str, np.ndarray]:
    """The inputs by name, in the graph's order, of the pictures of `seeds`; psi None: the network's default.

    The k-th value of a label stands for class k: a seed has the class of the remainder of its division by their number.
    """
    inputs = {"z": draw_latents(seeds, generator.z_dim)}
    if generator.has_styles:
        inputs["psi"] = np.asarray(generator.default_psi if psi is None else psi, np.float32)
    if labels := generator.config.labels:
        inputs["label"] = take_turns(seeds, labels)
    return inputs


@torch.inference_mode()
def paint_with_torch(generator: LoadedGenerator, seeds: Sequence[int], psi: float | None = None) -> np.ndarray:
    """The pictures that a file must reproduce: float32 (len(seeds), C, H, W), by the network's own way."""
    inputs = make_inputs(generator, seeds, psi)
    z, label = torch.from_numpy(inputs["z"]), inputs.get("label")
    c = None if label is None else torch.from_numpy(label)
    network = generator.network
    if isinstance(network, StyleNetwork):
        ws = network.truncate(network.broadcast(network.mapping(z, c)), float(inputs["psi"]), None)
        images: torch.Tensor = network.synthesis(ws, noise="const")
    else:
        images = network(z) if c is None else network(z, c)
    return images.float().numpy()


def check_onnx(
    path: Path,
    generator: LoadedGenerator,
    seeds: Sequence[int] = range(16),
    expected: np.ndarray | None = None,  # torch's pictures of these seeds, where they are known already
) -> OnnxCheck:
    """Compare onnxruntime's pictures of `seeds` with torch's, in batches of 1 and of several.

    Those alone in their batch are compared once more at psi 1, where the network has styles.
    Raises OnnxError, and removes the file, where it cannot be run or a value differs by more than LIMIT.
    """
    runtime = _need("onnxruntime")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise _refuse(path, f"onnxruntime cannot load it ({error})") from error
    largest, pictures = 0.0, 0
    for start, part in _cut(seeds):
        known = None if expected is None else expected[start : start + len(part)]
        wanted: list[tuple[float | None, np.ndarray | None]] = [(None, known)]
        if generator.has_styles and len(part) == 1:
            wanted.append((1.0, None))
        for psi, picture in wanted:
            picture = paint_with_torch(generator, part, psi) if picture is None else picture
            difference = _compare(path, session, make_inputs(generator, part, psi), picture)
            largest, pictures = max(largest, difference), pictures + len(part)
    return OnnxCheck(pictures, largest, f"onnxruntime {runtime.__version__}")


def _compare(path: Path, session: Any, inputs: dict[str, np.ndarray], expected: np.ndarray) -> float:
    """The largest difference between onnxruntime's pictures and `expected`; OnnxError if it is larger than LIMIT."""
    try:
        (images,) = session.run(["images"], inputs)
    except Exception as error:
        raise _refuse(path, f"onnxruntime cannot run it ({error})") from error
    if images.shape != expected.shape:
        raise _refuse(path, f"it makes pictures {images.shape} where torch makes {expected.shape}")
    difference = float(np.abs(images - expected).max())
    if not difference <= LIMIT:  # so that NaN is refused, too
        raise _refuse(path, f"its pictures differ from torch's by {difference:.3g}, more than {LIMIT:g}")
    return difference


def _refuse(path: Path, what: str) -> OnnxError:
    path.unlink(missing_ok=True)
    return OnnxError(
        f"{path.name} is not this network and was removed: {what}. Export without onnx, and report the versions of "
        "torch, onnxscript and onnxruntime."
    )


def _cut(seeds: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """In parts of BATCHES, each with the place of its first."""
    start = 0
    for count in cycle(BATCHES):
        if start >= len(seeds):
            return
        yield start, seeds[start : start + count]
        start += count


def _name_batch(model: Any) -> None:
    """Call the free dimension `batch`: the exporter numbers it."""
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = "batch"


def _strip(model: Any) -> None:
    """Take out the exporter's diary: source lines with paths of this machine, and half of a small file's size."""
    graph = model.graph
    del graph.value_info[:]  # intermediate shapes, which every runtime infers by itself
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks: on packages that it could have used, and on deprecations within torch."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _need(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise OnnxError(f"{package} is not installed: run pip install 'kaobako[onnx]', or leave out onnx") from error
