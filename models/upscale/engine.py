"""Enlarging pictures, one or many: chooses a network, a backend and a device, and brings each picture to its target.

On a CPU ncnn computes where it is installed and has the network's files; everything else is torch's. How a picture is
treated follows from its size, the settings and the machine alone, never from the other pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from models.upscale import catalogue, torch_backend
from models.upscale.fit import RGB
from models.upscale.ncnn_backend import NcnnBackend
from models.upscale.network import UpscaleNetwork
from models.upscale.pipeline import Passage, Stop, run_batched, run_each
from models.upscale.plan import Picture, Plan, Target, Upscaled, plan_picture
from models.upscale.precision import Precision, best_precision
from models.upscale.settings import UpscaleSettings, choose_device, choose_ncnn, count_cores
from models.upscale.torch_backend import TorchBackend
from models.weights import WeightError, digest_file, get_weight

__all__ = ["Picture", "Target", "UpscaleSettings", "Upscaled", "Upscaler"]

T = TypeVar("T")
R = TypeVar("R")


class Upscaler:
    """Brings pictures to their targets. Any number of threads may use one."""

    def __init__(self, settings: UpscaleSettings | None = None, folders: Sequence[Path] = ()) -> None:
        """
        Args:
            folders: where weights are looked for besides the user's own folder. They are read when they are needed.

        Raises ValueError for settings that do not go together, with the way out.
        """
        self.settings = settings = settings or UpscaleSettings()
        self.device = choose_device(settings.device)
        self._uses_ncnn = choose_ncnn(settings, self.device)
        if settings.speedup == "graphs" and self.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a CUDA device, not {self.device}: choose speedup 'none'")
        self._folders = tuple(folders)
        self._user: UpscaleNetwork | None = None
        if settings.model_file is None:
            info = catalogue.get_network(settings.network)
            self._name, self._scale, self.noise_levels = info.name, info.scale, info.noise_levels
        else:
            from models.upscale.user_networks import load_user_network

            self._user = load_user_network(settings.model_file)
            self._digest = digest_file(settings.model_file)
            self._name, self._scale, self.noise_levels = settings.model_file.stem, self._user.scale, ("none",)
        self._backends: dict[str, NcnnBackend | TorchBackend] = {}
        self._loading = threading.Lock()

    @property
    def scale(self) -> int:
        """How often the network multiplies each side in one pass; 1: it only removes noise."""
        return self._scale

    @property
    def engine(self) -> str:
        """What computes: "ncnn", "torch cpu float32", "torch cuda float16", ... Measures the precision if need be."""
        if self._uses_ncnn:
            return "ncnn"
        speedup = "" if self.settings.speedup == "none" else f" {self.settings.speedup}"
        return f"torch {self.device.type} {self._precision()}{speedup}"

    def weights(self, noise: str = "none") -> tuple[str, ...]:
        """Each weight that a noise level uses, as "name sha256:digest". ValueError where there is no such level."""
        self._check_noise(noise)
        if self.settings.model_file is not None:
            return (f"{self.settings.model_file.name} sha256:{self._digest}",)
        names = catalogue.weight_names(self._name, noise)
        return tuple(f"{name} sha256:{get_weight(name).sha256}" for name in names)

    def prepare(self, noise: str = "none") -> None:
        """Read and check the weights of a noise level now, so that what is wrong with them is known before any work.

        Raises ValueError where there is no such level and `models.weights.WeightError` for missing or damaged weights.
        """
        self._check_noise(noise)
        self._backend(noise)

    def upscale(self, rgb: RGB, target: Target, noise: str = "none") -> Upscaled:
        """One picture, (H, W, 3) uint8, to its target: the same bytes as by `upscale_all`.

        What is too small goes through the network as often as it takes, and what is then too large is reduced by
        Lanczos. A picture that is large enough is not computed (but by a network that only removes noise: once).

        Raises ValueError for what is no picture, an unknown noise level or an absurd size,
        `models.weights.WeightError` when weights are missing or damaged, and RuntimeError when memory does not suffice.
        """
        return self._upscale(Picture(rgb, target, noise), lambda: None)

    def upscale_all(
        self,
        items: Iterable[T],
        load: Callable[[T], Picture],
        finish: Callable[[T, Upscaled | Exception], R],
    ) -> Iterator[R]:
        """Every item's picture to its target; what ``finish`` makes of each, in the order of the items.

        Args:
            load: decodes; runs in worker threads. An Exception goes to ``finish`` instead of a result, and so does what
                goes wrong with this picture in the network. Missing weights are no picture's fault: `WeightError` is
                raised here.
            finish: encodes and writes; runs in worker threads. What it raises is raised here, at its item's place.

        Decoding, computing and encoding overlap. A bounded number of pictures is held at a time. Closing the generator,
        or an exception in the caller, ends all threads before it returns.
        """
        workers = self.settings.workers or count_cores()
        if not self._uses_ncnn and torch_backend.batch_pixels(self.device) > 0:
            return run_batched(items, lambda item: self._begin(load(item)), _complete(finish), workers)

        def work(item: T, stop: Stop) -> R:
            result: Upscaled | Exception
            try:
                result = self._upscale(load(item), stop)
            except WeightError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is: `finish` makes a row of it
                result = error
            stop()
            return finish(item, result)

        return run_each(items, work, workers)

    def _upscale(self, picture: Picture, stop: Stop) -> Upscaled:
        plan = self._plan(picture)
        rgb = plan.begin(picture.rgb)
        for _ in range(plan.applications):
            stop()
            rgb = self._backend(picture.noise).enlarge(rgb, stop)
        return plan.complete(rgb)

    def _begin(self, picture: Picture) -> Passage:
        plan = self._plan(picture)
        backend = self._backend(picture.noise) if plan.applications else None
        assert not isinstance(backend, NcnnBackend)
        return Passage(plan.begin(picture.rgb), plan, backend, plan.applications)

    def _plan(self, picture: Picture) -> Plan:
        self._check_noise(picture.noise)
        name = self._name if picture.noise == "none" else f"{self._name}-noise{picture.noise}"
        return plan_picture(picture, name, self._scale)

    def _check_noise(self, noise: str) -> None:
        if noise not in self.noise_levels:
            raise ValueError(f"{self._name} has no noise level {noise!r}: choose one of {', '.join(self.noise_levels)}")

    def _backend(self, noise: str) -> NcnnBackend | TorchBackend:
        """What computes a noise level, made at its first use."""
        with self._loading:
            if noise not in self._backends:
                self._backends[noise] = self._make_ncnn(noise) if self._uses_ncnn else self._make_torch(noise)
            return self._backends[noise]

    def _make_ncnn(self, noise: str) -> NcnnBackend:
        files = catalogue.ncnn_files(self._name, noise, self._folders)
        assert files is not None
        network = self._load(noise)
        fallback = _Fallback(network, self.settings.tta) if network.gates else None
        return NcnnBackend(network, *files, tta=self.settings.tta, fallback=fallback)

    def _make_torch(self, noise: str) -> TorchBackend:
        settings = self.settings
        return TorchBackend(self._load(noise), self.device, self._precision(), settings.tta, settings.speedup)

    def _precision(self) -> Precision:
        """As set; or measured with the network's first noise level, for all of them."""
        if self.settings.precision != "auto":
            return self.settings.precision
        name = self._name if self._user is None else self._digest
        return best_precision(name, lambda: self._load(self.noise_levels[0]), self.device)

    def _load(self, noise: str) -> UpscaleNetwork:
        if self._user is not None:
            return self._user
        return catalogue.load_network(self._name, noise, self._folders)


class _Fallback:
    """Pictures too large for one pass of ncnn, through a network with gates: torch finds the means over all tiles."""

    def __init__(self, network: UpscaleNetwork, tta: bool) -> None:
        self._network = network
        self._tta = tta
        self._backend: TorchBackend | None = None
        self._making = threading.Lock()

    def __call__(self, rgb: RGB, stop: Stop) -> RGB:
        with self._making:
            if self._backend is None:
                self._backend = TorchBackend(self._network, torch.device("cpu"), "float32", self._tta)
        return self._backend.enlarge(rgb, stop)


def _complete(finish: Callable[[T, Upscaled | Exception], R]) -> Callable[[T, Passage | Exception], R]:
    """`finish`, from what comes out of the network."""

    def complete(item: T, passage: Passage | Exception) -> R:
        if isinstance(passage, WeightError):
            raise passage
        result: Upscaled | Exception
        try:
            result = passage if isinstance(passage, Exception) else passage.plan.complete(passage.rgb)
        except Exception as error:  # noqa: BLE001  # such as memory: `finish` makes a row of it
            result = error
        return finish(item, result)

    return complete
