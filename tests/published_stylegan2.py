"""Snapshots in the layout of the published StyleGAN2 repositories, written without their code, for tests."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch


class PersistentModule:
    """A module as the published networks pickle themselves: a call with their class's name, source and attributes."""

    def __init__(self, class_name: str, source: str, state: dict[str, Any]) -> None:
        self.class_name = class_name
        self.source = source
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        util, persistence = sys.modules["dnnlib.util"], sys.modules["torch_utils.persistence"]
        meta = util.EasyDict(
            type="class", version=6, module_src=self.source, class_name=self.class_name, state=self.state
        )
        return persistence._reconstruct_persistent_obj, (meta,)


class PublishedWriter:
    """Makes StyleGAN2 networks of random tensors in the published layout, and pickles them."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker  # a file that appears if source text of a snapshot is ever run
        self.protocol = 4  # of the pickles
        self.source = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"

    def module(
        self,
        class_name: str,
        parameters: dict[str, torch.Tensor] | None = None,
        buffers: dict[str, torch.Tensor] | None = None,
        modules: dict[str, PersistentModule] | None = None,
        made_with: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> PersistentModule:
        state = {
            "training": False,
            "_parameters": OrderedDict((k, torch.nn.Parameter(v, False)) for k, v in (parameters or {}).items()),
            "_buffers": OrderedDict(buffers or {}),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(modules or {}),
            **attributes,
            "_init_args": (),
            "_init_kwargs": made_with or {},
        }
        return PersistentModule(class_name, self.source, state)

    def dense(self, rng: torch.Generator, inputs: int, outputs: int, rate: float = 1.0, **other: Any) -> Any:
        weight, bias = (torch.randn(shape, generator=rng) / rate for shape in ((outputs, inputs), (outputs,)))
        said = {"activation": "linear", "weight_gain": rate / inputs**0.5, "bias_gain": rate, **other}
        return self.module("FullyConnectedLayer", {"weight": weight, "bias": bias}, **said)

    def mapping(self, rng: torch.Generator, z_dim: int, c_dim: int, w_dim: int, layers: int, mean: bool) -> Any:
        inputs = z_dim + (w_dim if c_dim else 0)
        parts = {"embed": self.dense(rng, c_dim, w_dim)} if c_dim else {}
        for k in range(layers):
            parts[f"fc{k}"] = self.dense(rng, w_dim if k else inputs, w_dim, 0.01, activation="lrelu")
        buffers = {"w_avg": torch.randn(w_dim, generator=rng)} if mean else {}
        return self.module("MappingNetwork", buffers=buffers, modules=parts, num_layers=layers)

    def filter(self) -> torch.Tensor:
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        return torch.outer(taps, taps)

    def styled(self, rng: torch.Generator, w_dim: int, inputs: int, outputs: int, side: int, clamp: Any) -> Any:
        return self.module(
            "SynthesisLayer",
            {
                "weight": torch.randn(outputs, inputs, 3, 3, generator=rng),
                "noise_strength": torch.randn((), generator=rng),
                "bias": torch.randn(outputs, generator=rng),
            },
            {"resample_filter": self.filter(), "noise_const": torch.randn(side, side, generator=rng)},
            {"affine": self.dense(rng, w_dim, inputs)},
            use_noise=True,
            activation="lrelu",
            conv_clamp=clamp,
            act_gain=2**0.5,
        )

    def to_rgb(self, rng: torch.Generator, w_dim: int, inputs: int, channels: int, clamp: Any) -> Any:
        weight, bias = torch.randn(channels, inputs, 1, 1, generator=rng), torch.randn(channels, generator=rng)
        parts = {"affine": self.dense(rng, w_dim, inputs)}
        return self.module("ToRGBLayer", {"weight": weight, "bias": bias}, modules=parts, conv_clamp=clamp)

    def generator(
        self, seed: int, resolution: int = 32, z_dim: int = 8, c_dim: int = 0, w_dim: int = 12, layers: int = 2,
        base: int = 128, most: int = 10, channels: int = 3, clamp: float | None = 256, halves: int = 0,
        **made_with: Any,
    ) -> PersistentModule:  # fmt: skip
        rng = torch.Generator().manual_seed(seed)
        blocks: dict[str, PersistentModule] = {}
        below = 0
        for k in range((resolution // 4).bit_length()):
            side, width = 4 << k, min(base // (4 << k), most)
            parts = {"conv0": self.styled(rng, w_dim, below, width, side, clamp)} if below else {}
            parts["conv1"] = self.styled(rng, w_dim, width, width, side, clamp)
            parts["torgb"] = self.to_rgb(rng, w_dim, width, channels, clamp)
            constant = {} if below else {"const": torch.randn(width, 4, 4, generator=rng)}
            said = {"architecture": "skip", "use_fp16": side > max(resolution >> halves, 4)}
            filters = {"resample_filter": self.filter()}
            blocks[f"b{side}"] = self.module("SynthesisBlock", constant, filters, parts, **said)
            below = width
        sizes = {"z_dim": z_dim, "c_dim": c_dim, "w_dim": w_dim, "img_resolution": resolution, "img_channels": channels}
        inner = {"channel_base": base, "channel_max": most, "num_fp16_res": halves, "conv_clamp": clamp}
        parts = {
            "synthesis": self.module("SynthesisNetwork", modules=blocks, w_dim=w_dim),
            "mapping": self.mapping(rng, z_dim, c_dim, w_dim, layers, True),
        }
        arguments = {**sizes, "mapping_kwargs": {"num_layers": layers}, "synthesis_kwargs": inner, **made_with}
        return self.module("Generator", modules=parts, made_with=arguments, **sizes)

    def convolution(self, rng: torch.Generator, inputs: int, outputs: int, side: int, clamp: Any, **other: Any) -> Any:
        parameters = {"weight": torch.randn(outputs, inputs, side, side, generator=rng)}
        if other.get("activation") != "linear":
            parameters["bias"] = torch.randn(outputs, generator=rng)
        said = {"activation": "lrelu", "conv_clamp": clamp, "weight_gain": (inputs * side**2) ** -0.5, **other}
        return self.module("Conv2dLayer", parameters, {"resample_filter": self.filter()}, **said)

    def discriminator(
        self, seed: int, resolution: int = 32, c_dim: int = 0, base: int = 96, most: int = 8, channels: int = 3,
        clamp: float | None = 256, architecture: str = "resnet", group: int = 4, features: int = 1, **made_with: Any,
    ) -> PersistentModule:  # fmt: skip
        rng = torch.Generator().manual_seed(seed)
        widths = {side: min(base // side, most) for side in (4 << k for k in range((resolution // 4).bit_length()))}
        blocks: dict[str, PersistentModule] = {}
        for side in sorted(widths, reverse=True)[:-1]:
            width, below = widths[side], widths[side // 2]
            parts = {"fromrgb": self.convolution(rng, channels, width, 1, clamp)} if side == resolution else {}
            parts["conv0"] = self.convolution(rng, width, width, 3, clamp)
            parts["conv1"] = self.convolution(rng, width, below, 3, clamp)
            if architecture == "resnet":
                parts["skip"] = self.convolution(rng, width, below, 1, None, activation="linear", act_gain=1)
            filters = {"resample_filter": self.filter()}
            said = {"architecture": architecture, "use_fp16": False}
            blocks[f"b{side}"] = self.module("DiscriminatorBlock", buffers=filters, modules=parts, **said)
        last = widths[4]
        ends = {
            "mbstd": self.module("MinibatchStdLayer", group_size=group, num_channels=features),
            "conv": self.convolution(rng, last + features, last, 3, clamp),
            "fc": self.dense(rng, last * 16, last, activation="lrelu"),
            "out": self.dense(rng, last, last if c_dim else 1),
        }
        blocks["b4"] = self.module("DiscriminatorEpilogue", modules=ends, architecture=architecture)
        if c_dim:
            blocks["mapping"] = self.mapping(rng, 0, c_dim, last, 8, False)
        sizes = {"c_dim": c_dim, "img_resolution": resolution, "img_channels": channels}
        inner = {"channel_base": base, "channel_max": most, "conv_clamp": clamp, "architecture": architecture}
        ending = {"mbstd_group_size": group, "mbstd_num_channels": features}
        arguments = {**sizes, **inner, "epilogue_kwargs": ending, **made_with}
        return self.module("Discriminator", modules=blocks, made_with=arguments, **sizes)

    def flatten(self, module: PersistentModule, prefix: str = "") -> dict[str, torch.Tensor]:
        """All tensors of a network by dotted names."""
        found = {
            f"{prefix}{k}": v.detach() for kind in ("_parameters", "_buffers") for k, v in module.state[kind].items()
        }
        for name, child in module.state["_modules"].items():
            found |= self.flatten(child, f"{prefix}{name}.")
        return found

    def write(self, path: Path, content: object) -> Path:
        """Pickle `content`, with the modules that the published programs would have in place only meanwhile."""
        util, persistence = ModuleType("dnnlib.util"), ModuleType("torch_utils.persistence")
        util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})  # type: ignore[attr-defined]

        def _reconstruct_persistent_obj(meta: object) -> None:
            raise AssertionError("a snapshot was loaded by pickle itself")

        _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
        fakes = {"dnnlib": ModuleType("dnnlib"), "torch_utils": ModuleType("torch_utils")}
        fakes |= {"dnnlib.util": util, "torch_utils.persistence": persistence}
        with patch.dict(sys.modules, fakes):
            path.write_bytes(pickle.dumps(content, self.protocol))
        return path

    def snapshot(self, path: Path, **networks: PersistentModule) -> Path:
        """A whole snapshot file: networks by the names G, D and G_ema."""
        told = {"class_name": "training.dataset.ImageFolderDataset", "path": "/data/portraits.zip", "max_size": 900}
        return self.write(path, {"training_set_kwargs": {**told, "xflip": True}, "augment_pipe": None, **networks})
