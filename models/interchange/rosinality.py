"""The StyleGAN2 of rosinality's stylegan2-pytorch, from its `.pt` state dicts, as ours.

Names, and the arithmetic that they stand for (gains, orientation of the doubling convolutions, order of the styles),
are from memory of the program and were tested against a reference of our own, written from the same memory; no file of
others was at hand. A wrong name or shape is an error, never a guess.

    G   style.K (from 1)              mapping.layers.K-1
        input.input (1, C, 4, 4)      synthesis.constant
        conv1, to_rgb1                synthesis.levels.0.refine, .to_rgb
        convs.2K-2, convs.2K-1        synthesis.levels.K.grow, .refine
        to_rgbs.K-1                   synthesis.levels.K.to_rgb
        noises.noise_J                the fixed noise of layer J
            .conv.weight              .weight, with an axis of 1 before
            .conv.modulation          .style
            .noise.weight (1)         .noise_strength
            .activate.bias            .bias; of an RGB layer `.bias` (1, C, 1, 1)
    D   convs.0                       from_rgb
        convs.J.conv1, conv2, skip    levels, the largest first: plain, halve, skip
        final_conv, final_linear.0, 1 last_conv, dense, out

What differs without a name: nothing is clamped there; the mean style is not saved by the training, only in files that
were converted (`latent_avg`).
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from models.gan.fir import setup_filter
from models.interchange.imported_model import (
    ImportedModel,
    Settings,
    build_config,
    complete_generators,
    fill_network,
    fit_widths,
)
from models.interchange.inert_file import InertFile
from models.interchange.inert_pickle import ModelFileError, Record, plain

KEYS = {"g_ema": "G_ema", "g": "G", "d": "D"}  # names in the file, and ours
MBSTD_GROUP, MBSTD_FEATURES = 4, 1  # fixed there
SHOWN = 6  # names in a message

_STYLED = {
    "conv.modulation.weight": "style.weight",
    "conv.modulation.bias": "style.bias",
    "conv.weight": "weight",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
}
_TO_RGB = {
    "conv.modulation.weight": "style.weight",
    "conv.modulation.bias": "style.bias",
    "conv.weight": "weight",
    "bias": "bias",
}
_D_LAYERS = {
    "conv1.0.weight": "plain.weight",
    "conv1.1.bias": "plain.bias",
    "conv2.1.weight": "halve.weight",
    "conv2.2.bias": "halve.bias",
    "skip.1.weight": "skip.weight",
}
_D_ENDS = {
    "convs.0.0.weight": "from_rgb.weight",
    "convs.0.1.bias": "from_rgb.bias",
    "final_conv.0.weight": "last_conv.weight",
    "final_conv.1.bias": "last_conv.bias",
    "final_linear.0.weight": "dense.weight",
    "final_linear.0.bias": "dense.bias",
    "final_linear.1.weight": "out.weight",
    "final_linear.1.bias": "out.bias",
}


def import_rosinality(file: InertFile) -> ImportedModel:
    """The StyleGAN2 of a `.pt`; ModelFileError, naming what is wrong, for another kind of file or network."""
    file.require_sound()
    try:
        return _import_state(file.content)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path} cannot be imported: {error}") from error


def _import_state(content: Any) -> ImportedModel:
    if not isinstance(content, dict):
        raise ModelFileError("it holds no networks by the names g_ema, g and d")
    held = {ours: _read_state(theirs, content[theirs]) for theirs, ours in KEYS.items() if theirs in content}
    if not set(held) - {"D"}:
        names = ", ".join(sorted(plain(key) for key in content)[:SHOWN]) or "nothing"
        raise ModelFileError(f"it holds no generator by the name g_ema or g, but {names}")
    tensors = {name: _rename_d(state) if name == "D" else _rename_g(name, state) for name, state in held.items()}
    mean = content.get("latent_avg")
    with_mean = isinstance(mean, Tensor)
    if isinstance(mean, Tensor):
        for name in set(tensors) - {"D"}:
            tensors[name]["w_mean"] = mean.flatten()
    settings = _plan(tensors)
    config = build_config(settings, _plan_d(tensors["D"], settings) if "D" in tensors else None, mirrored=False)
    networks = {name: fill_network(name, config, found) for name, found in tensors.items()}
    notes = complete_generators(networks, with_mean)
    found = {name: "rosinality's " + ("Discriminator" if name == "D" else "Generator") for name in held}
    return ImportedModel(config, networks, found, _read_options(content.get("args")), notes)


def _read_state(name: str, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileError(f"{name} is no state dict of tensors")
    named = {plain(key).removeprefix("module."): value for key, value in state.items()}
    taps = setup_filter()
    for key in [key for key in named if key.endswith(".kernel")]:  # 4 times as strong where a map is doubled
        kernel = named.pop(key).float()
        if kernel.shape != (4, 4) or not torch.allclose(kernel / kernel.sum(), torch.outer(taps, taps), atol=1e-5):
            raise ModelFileError(f"{name}: {key} is another filter than [1, 3, 3, 1], which ours has everywhere")
    return named


def _rename_g(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        ours = _own_g(key)
        if ours is None:
            raise ModelFileError(f"{name} holds {key}, which no StyleGAN2 of rosinality's has")
        renamed[ours] = _reshape(ours, tensor)
    return renamed


def _own_g(key: str) -> str | None:
    if key == "input.input":
        return "synthesis.constant"
    if found := re.fullmatch(r"style\.([1-9]\d?)\.(weight|bias)", key):
        return f"mapping.layers.{int(found[1]) - 1}.{found[2]}"
    if found := re.fullmatch(r"noises\.noise_(\d{1,2})", key):
        layer = int(found[1])
        return f"synthesis.levels.{(layer + 1) // 2}.{'grow' if layer % 2 else 'refine'}.noise"
    if found := re.fullmatch(r"(conv1|convs\.(\d{1,2}))\.(.+)", key):
        layer = int(found[2]) + 1 if found[2] else 0
        inner = _STYLED.get(found[3])
        part = "grow" if layer % 2 else "refine"
        return f"synthesis.levels.{(layer + 1) // 2}.{part}.{inner}" if inner else None
    if found := re.fullmatch(r"(to_rgb1|to_rgbs\.(\d{1,2}))\.(.+)", key):
        inner = _TO_RGB.get(found[3])
        return f"synthesis.levels.{int(found[2]) + 1 if found[2] else 0}.to_rgb.{inner}" if inner else None
    return None


def _reshape(name: str, tensor: Tensor) -> Tensor:
    """Without the axes of 1 that a batch has there."""
    if name.endswith(".noise_strength") and tensor.numel() == 1:
        return tensor.reshape(())
    if name.endswith(".noise") and tensor.ndim == 4 and tensor.shape[:2] == (1, 1):
        return tensor[0, 0]
    if name.endswith(".to_rgb.bias"):
        return tensor.flatten()
    batched = name == "synthesis.constant" or (name.startswith("synthesis.") and tensor.ndim == 5)
    return tensor[0] if batched and tensor.ndim > 1 and tensor.shape[0] == 1 else tensor


def _rename_d(state: dict[str, Tensor]) -> dict[str, Tensor]:
    numbers = [int(found[1]) for key in state if (found := re.match(r"convs\.(\d{1,2})\.", key))]
    levels = max(numbers, default=0)
    renamed = {}
    for key, tensor in state.items():
        ours = _D_ENDS.get(key)
        found = re.fullmatch(r"convs\.([1-9]\d?)\.(.+)", key)
        if found and found[2] in _D_LAYERS:
            ours = f"levels.{levels - int(found[1])}.{_D_LAYERS[found[2]]}"
        if ours is None:
            raise ModelFileError(f"D holds {key}, which no StyleGAN2 of rosinality's has")
        renamed[ours] = tensor
    return renamed


def _plan(tensors: dict[str, dict[str, Tensor]]) -> Settings:
    """What the generator is, by its tensors under our names; the rest is checked when they are loaded."""
    name, found = next((name, found) for name, found in tensors.items() if name != "D")
    numbers = [int(match[1]) for key in found if (match := re.match(r"synthesis\.levels\.(\d+)\.refine\.weight", key))]
    sides = [4 << k for k in range(min(len(numbers), 12))]
    widths = [_size(name, found, f"synthesis.levels.{k}.refine.weight", 0, 4) for k in range(len(sides))]
    base, most = fit_widths(name, sides, widths)
    return {
        "z_dim": _size(name, found, "mapping.layers.0.weight", 1, 2),
        "w_dim": _size(name, found, "mapping.layers.0.weight", 0, 2),
        "c_dim": 0,
        "img_resolution": sides[-1],
        "img_channels": _size(name, found, "synthesis.levels.0.to_rgb.weight", 0, 4),
        "num_layers": sum(bool(re.fullmatch(r"mapping\.layers\.\d+\.weight", key)) for key in found),
        "channel_base": base,
        "channel_max": most,
        "half_resolutions": 0,
        "conv_clamp": None,
    }


def _plan_d(found: dict[str, Tensor], generator: Settings) -> Settings:
    count = generator["img_resolution"].bit_length() - 3
    sides = [4 << k for k in range(count + 1)]
    last = _size("D", found, "last_conv.weight", 0, 4)
    widths = [last, *(_size("D", found, f"levels.{k}.plain.weight", 0, 4) for k in range(count))]
    base, most = fit_widths("D", sides, widths)
    return {
        "channel_base": base,
        "channel_max": most,
        "d_architecture": "resnet",
        "mbstd_group": MBSTD_GROUP,
        "mbstd_features": MBSTD_FEATURES,
    }


def _size(network: str, tensors: dict[str, Tensor], name: str, axis: int, axes: int) -> int:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != axes:
        what = "lacks" if tensor is None else f"has with the shape {tuple(tensor.shape)}"
        raise ModelFileError(f"{network} {what} what is {name} here, so it is no StyleGAN2 of rosinality's")
    return int(tensor.shape[axis])


def _read_options(options: Any) -> dict[str, Any]:
    """The pictures' place and size among the options of the training, where the file holds them."""
    said = options.state if isinstance(options, Record) and isinstance(options.state, dict) else {}
    known = {key: said.get(key) for key in ("path", "size", "batch", "iter")}
    return {
        key: plain(value) if isinstance(value, str) else value
        for key, value in known.items()
        if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**53)
    }
