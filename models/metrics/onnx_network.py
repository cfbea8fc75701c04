"""A user's feature network as an ONNX file, run by onnxruntime."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.metrics.contract import Contract, demand_contract, describe
from models.metrics.extraction import (
    BATCH,
    ExtractorError,
    NetworkExtractor,
    Pictures,
    digest_definition,
    reproducible,
)

ELEMENTS = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


def load_onnx(path: Path, content: bytes, contract: Contract | None, device: torch.device) -> NetworkExtractor:
    """An extractor out of an ONNX file's bytes. See `models.metrics.extractors.load_extractor`.

    Without a contract only a uint8 input is understood: RGB from 0 to 255, resized to the size that the file states.
    """
    session = _load(path, content, device)
    entry = _only_input(path, session)
    agreed = contract or _detect(path, entry)
    if agreed.input != ELEMENTS[entry.type]:
        raise ExtractorError(f"{path.name} takes {ELEMENTS[entry.type]}, but its contract says {agreed.input}.")
    output = _name_output(path, session, agreed.output)
    digest = digest_definition(content, describe(agreed))

    def compute(pictures: Pictures) -> npt.NDArray[np.floating]:
        with reproducible(device):
            x = agreed.prepare(pictures, device).cpu().numpy()
        try:
            given = session.run([output], {entry.name: x})[0]
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise ExtractorError(f"{path.name} cannot be run: {str(error).strip().splitlines()[0]}") from error
        return agreed.channels_first(np.asarray(given))

    batch = entry.shape[0] if isinstance(entry.shape[0], int) else BATCH
    return NetworkExtractor(f"{path.stem}-{digest[:8]}", digest, compute, batch)


def _load(path: Path, content: bytes, device: torch.device) -> Any:
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise ExtractorError(f"{path.name} needs onnxruntime: run pip install 'kaobako[onnx]'.") from error
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(content, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:  # as above
        raise ExtractorError(f"{path.name} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def _only_input(path: Path, session: Any) -> Any:
    """The input, if it is the only one and takes pictures."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ELEMENTS or len(inputs[0].shape) != 4:
        stated = ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs) or "none"
        raise ExtractorError(
            f"{path.name} must have one float or uint8 input (N, 3, H, W) or (N, H, W, 3), but its inputs are: {stated}"
        )
    return inputs[0]


def _detect(path: Path, entry: Any) -> Contract:
    if ELEMENTS[entry.type] != "uint8":
        raise demand_contract(path, "has a float input, whose range, size and colours only its maker knows")
    last = entry.shape[3] == 3 and entry.shape[1] != 3
    height, width = entry.shape[1:3] if last else entry.shape[2:4]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Contract(size=size, input="uint8", layout="NHWC" if last else "NCHW")


def _name_output(path: Path, session: Any, output: str | int | None) -> str:
    names = [entry.name for entry in session.get_outputs()]
    if output is None and len(names) == 1:
        return names[0]
    if isinstance(output, int) and 0 <= output < len(names):
        return names[output]
    if output in names:
        return str(output)
    said = "its contract names none" if output is None else f"{output!r} is not among them"
    raise ExtractorError(f"{path.name} has the outputs {', '.join(names)}, and {said}: set `output` to one of them.")
