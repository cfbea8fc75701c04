"""A trained generator, ready to sample from: one interface for z to picture (DCGAN, R3GAN) and z to w to picture
(StyleGAN2).

In two steps. `codes` are what the picture network takes: the latents with their labels, or the styles, mapped and
truncated.
`draw` makes pictures of codes, as many at once as `picture_batch` says, so that memory does not grow with their number.
Every call has the same batch shape, so that a seed gives the same picture in any company.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from models.gan.latents import BATCH, pad_rows, picture_batch
from models.gan.pictures import to_uint8
from models.sampling.settings import Noise, SamplingError, SamplingSettings
from models.training.config import DatasetRef, Precision, TrainingConfig
from models.training.networks import build_generator, resolve_precision
from models.training.run import find_snapshot
from models.training.snapshot import SnapshotError, load_weights, read_record, weights_path

STYLE_PSI = 0.7  # default truncation of networks with styles: at 1 too many pictures of small trainings are broken
NOISE_STREAM = 1  # beside a seed: its noise is independent of its latent


@runtime_checkable
class StyleNetwork(Protocol):
    """What a generator with styles has: z to w, w to one style per layer, truncation, and styles to picture."""

    mapping: nn.Module  # (z (N, z_dim), c (N, labels) or None) -> w (N, w_dim)
    synthesis: Any  # (ws, noise) -> float32 (N, C, H, W), about -1..1; noise_layers() lists the layers with noise

    @property
    def num_ws(self) -> int: ...  # layers that take a style

    half_dtype: torch.dtype | None  # of the larger maps; None: float32

    def broadcast(self, w: torch.Tensor) -> torch.Tensor: ...  # (N, num_ws, w_dim)

    def truncate(self, ws: torch.Tensor, psi: float, cutoff: int | None) -> torch.Tensor: ...


class Code(NamedTuple):
    """One picture to be."""

    values: np.ndarray  # float32 (z_dim,), its label behind it if any, or (num_ws, w_dim) of a network with styles
    seed: int  # of its noise, where that is random


def draw_noise(seeds: Sequence[int], shapes: Sequence[tuple[int, ...]], device: torch.device) -> list[torch.Tensor]:
    """Noise maps by seed: for each shape a standard normal float32 (len(seeds), *shape).

    Each seed has a PCG64 of its own, so that its maps are the same in any company and on every platform.
    """
    rngs = [np.random.Generator(np.random.PCG64([seed, NOISE_STREAM])) for seed in seeds]
    maps = (np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs]) for shape in shapes)
    return [torch.from_numpy(rows).to(device) for rows in maps]


@dataclass(frozen=True)
class LoadedGenerator:
    """A generator ready to sample from, and where it comes from."""

    network: nn.Module  # in eval mode, on the device asked for
    config: TrainingConfig  # of its training
    dataset: DatasetRef  # it was trained on
    nimg: int  # real pictures seen
    weights: Path  # the .safetensors it was loaded from

    @property
    def z_dim(self) -> int:
        """Normal values per latent."""
        return self.config.algorithm.z_dim

    @property
    def channels(self) -> int:
        """3 = RGB, 1 = grey, 4 = RGBA."""
        return self.config.channels

    @property
    def height(self) -> int:
        """Rows of a picture."""
        return self.config.height

    @property
    def width(self) -> int:
        """Columns of a picture."""
        return self.config.width

    @property
    def batch(self) -> int:
        """Pictures per call of the network, always."""
        return picture_batch(self.height, self.width)

    @property
    def has_styles(self) -> bool:
        """Whether there is a w between latent and picture: to truncate, to mix."""
        return isinstance(self.network, StyleNetwork)

    @property
    def default_psi(self) -> float:
        """The truncation when none is asked for."""
        return STYLE_PSI if self.has_styles else 1.0

    def styles(self, purpose: str) -> StyleNetwork:
        """The network as one with styles; SamplingError, naming the `purpose`, if it is none."""
        if not isinstance(self.network, StyleNetwork):
            raise SamplingError(
                f"{purpose} needs a network with styles, such as StyleGAN2. This {self.config.algorithm.name} makes "
                "pictures of z directly: there is no w that could be moved towards its mean, or mixed."
            )
        return self.network

    @property
    def layer_sizes(self) -> list[int]:
        """Longer side of the map that each style acts on, in pixels; the last one acts on the colours alone."""
        longer = max(self.height, self.width)
        count = self.styles("layers").num_ws
        return [min(max(self.config.aspect) << (k + 1) // 2, longer) for k in range(count)]

    def check(self, settings: SamplingSettings) -> None:
        """Raise SamplingError if this generator cannot sample so."""
        if not self.has_styles:
            if settings.psi not in (None, 1.0) or settings.layers is not None:
                self.styles("truncation (--trunc)")
            if settings.noise is not Noise.CONST:
                self.styles(f"noise = {settings.noise}")
        elif settings.layers is not None:
            count = self.styles("truncation").num_ws
            if not 1 <= settings.layers <= count:
                raise SamplingError(f"--trunc-layers must be 1 to {count}, the layers here, got {settings.layers}")
        if settings.psi is not None and not isfinite(settings.psi):
            raise SamplingError(f"--trunc must be a finite number, got {settings.psi}")
        self._check_label(settings.label)

    def _check_label(self, label: tuple[float, ...] | None) -> None:
        expected = self.config.labels
        if label is None and expected:
            raise SamplingError(
                f"this network is conditional: give --class 0 to {expected - 1}, or --label with {expected} values"
            )
        if label is not None and not expected:
            raise SamplingError("this network was trained without labels: leave out --class and --label")
        if label is not None and len(label) != expected:
            raise SamplingError(f"this network's labels have {expected} values, got {len(label)}")

    def class_label(self, *numbers: int) -> tuple[float, ...]:
        """The label of a class, or of several that a picture has together: 1 at their numbers, 0 elsewhere."""
        count = self.config.labels
        self._check_label(tuple([0.0] * count) or (0.0,))
        for number in numbers:
            if not 0 <= number < count:
                raise SamplingError(f"--class must be 0 to {count - 1}, got {number}")
        return tuple(float(k in numbers) for k in range(count))

    @torch.inference_mode()
    def codes(self, latents: np.ndarray, settings: SamplingSettings = SamplingSettings()) -> np.ndarray:  # noqa: B008
        """What `draw` takes, of latents, float32 (N, z_dim): (N, z_dim + labels), or (N, num_ws, w_dim), truncated.

        Raises SamplingError if this generator cannot sample so.
        """
        self.check(settings)
        if not isinstance(self.network, StyleNetwork):
            if settings.label is None:
                return latents
            labels = np.tile(np.array(settings.label, np.float32), (len(latents), 1))
            return np.concatenate([latents, labels], axis=1)
        psi = self.default_psi if settings.psi is None else settings.psi
        device = self._device()
        label = None
        if settings.label is not None:
            label = torch.tensor(settings.label, dtype=torch.float32, device=device).expand(BATCH, -1)
        parts = []
        for start in range(0, len(latents), BATCH):
            rows = latents[start : start + BATCH]
            w = self.network.mapping(torch.from_numpy(pad_rows(rows, BATCH)).to(device), label)
            ws = self.network.broadcast(w)
            if psi != 1:  # at 1 the mean is left out altogether: it would only add rounding
                ws = self.network.truncate(ws, psi, settings.layers)
            parts.append(ws[: len(rows)].float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self.network.num_ws, 0), np.float32)

    def draw(self, codes: Iterable[Code], noise: Noise = Noise.CONST) -> Iterator[np.ndarray]:
        """The pictures of codes, uint8 (H, W, C) each, in order. Codes are taken as needed: they may be without end."""
        rest = iter(codes)
        while part := list(islice(rest, self.batch)):
            yield from self._draw_batch(part, noise)

    @torch.inference_mode()
    def _draw_batch(self, codes: list[Code], noise: Noise) -> np.ndarray:
        if self.network.training:
            raise ValueError("the generator must be in eval mode: batch norm would mix the pictures of a batch")
        device = self._device()
        values = torch.from_numpy(pad_rows(np.stack([code.values for code in codes]), self.batch)).to(device)
        if isinstance(self.network, StyleNetwork):
            maps: str | list[torch.Tensor] = noise.value
            if noise is Noise.RANDOM:
                seeds = [code.seed for code in codes] + [0] * (self.batch - len(codes))
                shapes = [(1, *layer.noise.shape) for layer in self.network.synthesis.noise_layers()]
                maps = draw_noise(seeds, shapes, device)
            images = self.network.synthesis(values, noise=maps)
        elif self.config.labels:
            images = self.network(values[:, : self.z_dim], values[:, self.z_dim :])
        else:
            images = self.network(values)
        return to_uint8(images[: len(codes)])

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def load_generator(run_or_snapshot: Path, ema: bool = True, device: torch.device | str = "cpu") -> LoadedGenerator:
    """The generator of a run folder's newest sound snapshot, or of a snapshot's `.json` or `.safetensors`.

    ema: the averaged weights (what the grids of a run show), else those of the last step.
    Raises RunError or SnapshotError, with what to do, if there is no usable snapshot.
    """
    path = find_snapshot(run_or_snapshot)
    record = read_record(path)
    weights = weights_path(path)
    network = build_generator(record.config)
    try:
        network.load_state_dict(load_weights(weights, "G_ema" if ema else "G"))
    except RuntimeError as error:
        raise SnapshotError(f"{weights} does not fit its own config: {error}") from error
    network.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    if hasattr(network, "half_dtype"):
        precision = _precision(record.config, torch.device(device))
        half = resolve_precision(precision, torch.device(device), record.config.gpu_precision)
        network.half_dtype = half  # type: ignore[assignment]
    return LoadedGenerator(
        network=network, config=record.config, dataset=record.dataset, nimg=record.nimg, weights=weights
    )


def _precision(config: TrainingConfig, device: torch.device) -> Precision:
    """As in training, so that samples equal the grids of the run; but a CPU has no float16."""
    on_cpu = device.type == "cpu" and config.precision is Precision.FLOAT16
    return Precision.FLOAT32 if on_cpu else config.precision
