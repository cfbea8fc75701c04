from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.upscale.catalogue import (
    DEFAULT_NETWORK,
    NETWORKS,
    NOISE_LEVELS,
    get_network,
    load_network,
    ncnn_files,
    weight_names,
)
from models.upscale.network import UpscaleNetwork
from models.weights import MissingWeightError, get_weight

PAIRS = [(name, noise) for name, info in NETWORKS.items() for noise in info.noise_levels]


def test_all_networks_are_there() -> None:
    assert tuple(NETWORKS) == (
        *("upconv7", "upconv7-chainer", "cunet", "cunet-denoise", "vgg7", "vgg7-denoise", "resnet10"),
        *("resnet10-denoise", "upresnet10", "realesr-animevideov3", "realesr-animevideov3-x3"),
        *("realesr-animevideov3-x4", "realesrgan-x4plus-anime"),
    )
    assert DEFAULT_NETWORK in NETWORKS and NETWORKS[DEFAULT_NETWORK].noise_levels == NOISE_LEVELS


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_agree_with_the_weights(name: str) -> None:
    info = NETWORKS[name]
    assert info.name == name and info.about
    assert set(info.noise_levels) <= set(NOISE_LEVELS)
    assert ("none" in info.weights) == (info.scale > 1)
    sets = list(info.weights.values())
    assert len(set(sets)) == len(sets)  # no two levels are the same
    for noise, names in info.weights.items():
        assert {get_weight(weight).licence for weight in names} == {info.licence}
        assert len(set(names)) == len(names)
        if noise != "none":
            assert any(f"noise{noise}" in weight for weight in names)
        if info.has_ncnn_files:
            assert [Path(get_weight(weight).file_name).suffix for weight in names] == [".param", ".bin"]


@pytest.mark.parametrize(("name", "noise"), PAIRS)
def test_every_row_loads(name: str, noise: str, load_real: Callable[..., UpscaleNetwork]) -> None:
    network = load_real(name, noise)
    assert network.scale == NETWORKS[name].scale
    assert not network.training
    parameters = list(network.parameters())
    assert parameters and not any(p.requires_grad for p in parameters)
    assert {(p.dtype, p.device.type) for p in parameters} == {(torch.float32, "cpu")}
    side = -(-8 // network.multiple) * network.multiple
    flat = torch.full((1, 3, side + 2 * network.margin, side + 2 * network.margin), 0.6)
    with torch.inference_mode():
        result = network(flat)
    cut = network.scale * (network.margin - network.loss)
    inner = result[..., cut : cut + network.scale * side, cut : cut + network.scale * side]
    assert inner.shape == (1, 3, network.scale * side, network.scale * side)
    assert float((inner - 0.6).abs().max()) < 0.03  # a flat colour stays; at the border zeros may be seen


@pytest.mark.parametrize("name", [name for name, info in NETWORKS.items() if len(info.weights) > 1])
def test_the_strongest_level_smooths_more_than_the_weakest(name: str, load_real: Callable[..., UpscaleNetwork]) -> None:
    info = NETWORKS[name]
    rng = np.random.default_rng(0)
    left = []
    for noise in (info.noise_levels[0], info.noise_levels[-1]):
        network = load_real(name, noise)
        side = 24 + 2 * network.margin
        noisy = np.clip(0.5 + 0.03 * rng.standard_normal((1, 3, side, side)), 0, 1).astype(np.float32)
        with torch.inference_mode():
            left.append(float(network(torch.from_numpy(noisy)).std()))
    assert left[1] < 0.5 * left[0], left


def test_ncnn_files_are_the_checked_bytes(
    read_real: Callable[[str], bytes], real_ncnn_files: Callable[..., tuple[bytes, bytes]]
) -> None:
    param, weights = real_ncnn_files("cunet", "2")
    assert param.startswith(b"7767517")
    assert (param, weights) == (read_real("waifu2x-cunet.param"), read_real("waifu2x-cunet-noise2-scale.bin"))
    assert ncnn_files("vgg7", "1") is None


def test_other_names_and_levels_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"no network is called 'waifu3x'.*upconv7.*cunet.*realesrgan-x4plus-anime"):
        get_network("waifu3x")
    for call in (weight_names, load_network, ncnn_files):
        with pytest.raises(ValueError, match=r"cunet has no noise level '4': choose one of none, 0, 1, 2, 3$"):
            call("cunet", "4")
        with pytest.raises(
            ValueError, match=r"realesrgan-x4plus-anime has no noise level '1'.*none; '1' is known to up"
        ):
            call("realesrgan-x4plus-anime", "1")
        with pytest.raises(ValueError, match="cunet-denoise has no noise level 'none': choose one of 0, 1, 2, 3"):
            call("cunet-denoise", "none")


def test_missing_weights_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for call in (load_network, ncnn_files):
        with pytest.raises(MissingWeightError, match=r"kaobako weights fetch waifu2x-upconv7.param"):
            call("upconv7")
    with pytest.raises(MissingWeightError, match="kaobako weights fetch waifu2x-vgg7-noise1"):
        load_network("vgg7", "1")
