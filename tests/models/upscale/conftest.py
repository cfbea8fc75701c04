import os
from collections.abc import Callable

import pytest

from models.upscale.catalogue import load_network, ncnn_files, weight_names
from models.upscale.network import UpscaleNetwork
from models.weights import read_weight, weight_status


def require(names: tuple[str, ...]) -> None:
    """Goes on only with these weights on the machine; without them the test is skipped (in CI: fails)."""
    for name in names:
        status = weight_status(name)
        if status.state != "ok":
            (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)


@pytest.fixture(scope="session")
def load_real() -> Callable[..., UpscaleNetwork]:
    """``load_real(name, noise="none")``: a network of the catalogue with its real weights."""

    def load(name: str, noise: str = "none") -> UpscaleNetwork:
        require(weight_names(name, noise))
        return load_network(name, noise)

    return load


@pytest.fixture(scope="session")
def read_real() -> Callable[[str], bytes]:
    """``read_real(weight)``: the bytes of one registered weight."""

    def read(weight: str) -> bytes:
        require((weight,))
        return read_weight(weight)

    return read


@pytest.fixture(scope="session")
def real_ncnn_files() -> Callable[..., tuple[bytes, bytes]]:
    """``real_ncnn_files(name, noise="none")``: the ``.param`` and ``.bin`` of a network of the catalogue."""

    def read(name: str, noise: str = "none") -> tuple[bytes, bytes]:
        require(weight_names(name, noise))
        files = ncnn_files(name, noise)
        assert files is not None
        return files

    return read
