from pathlib import Path

import pytest
import torch
from torch import nn

from models.gan.stylegan2 import Discriminator
from models.training.config import DatasetRef, DCGANConfig, StyleGAN2Config, TrainingConfig
from models.training.networks import build_discriminator, build_generator
from models.training.snapshot import SnapshotError, read_record, save_snapshot, weights_path
from models.training.transfer import TransferError, transfer_digest, transfer_weights

DATASET = DatasetRef("discs", 3, "0123456789abcdef" * 4, 1000)


def make_networks(config: TrainingConfig, seed: int) -> dict[str, nn.Module]:
    """G, D and G_ema whose tensors are all different from those of another seed."""
    rng = torch.Generator().manual_seed(seed)
    networks = {"G": build_generator(config), "D": build_discriminator(config), "G_ema": build_generator(config)}
    for network in networks.values():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=rng))
    return networks


def make_config(resolution: int, **changes: object) -> TrainingConfig:
    """All maps have 8 channels, so that 64 and 128 px differ in the number of levels alone."""
    algorithm = StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=2, channel_base=1024, channel_max=8)
    return TrainingConfig(algorithm=algorithm.model_copy(update=changes), resolution=resolution)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, dict[str, nn.Module]]:
    """A snapshot of a 64 px training: its record and its networks."""
    config = make_config(64)
    networks = make_networks(config, 1)
    return save_snapshot(tmp_path, 640, config, DATASET, networks, {}), networks


def test_the_same_networks_carry_over_whole(source: tuple[Path, dict[str, nn.Module]]) -> None:
    path, before = source
    networks = make_networks(make_config(64), 2)
    report = transfer_weights(weights_path(path), networks)
    for name, network in networks.items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name].state_dict()[key]), key
    assert all(not (part.missing or part.reshaped or part.unused) for part in report.networks)
    assert all("(100% of the weights)" in line for line in report.lines())


@pytest.mark.parametrize("resolution", [32, 128])
def test_low_levels_carry_over_to_another_resolution(
    source: tuple[Path, dict[str, nn.Module]], resolution: int
) -> None:
    """G begins alike at both ends of the mapping, D ends alike: what the networks share gives the same values."""
    path, before = source
    networks = make_networks(make_config(resolution), 2)
    report = {part.network: part for part in transfer_weights(weights_path(path), networks).networks}
    assert all(part.reshaped == () for part in report.values())
    assert all(bool(part.missing) == (resolution > 64) for part in report.values())
    assert all(bool(part.unused) == (resolution < 64) for part in report.values())
    assert all(part.values_taken > 0.5 * part.values for part in report.values())

    z = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    new, old = networks["G_ema"].get_submodule("mapping"), before["G_ema"].get_submodule("mapping")
    assert torch.equal(new(z, None), old(z, None))
    shared = min(resolution, 64)
    maps = {side: _level_output(networks["D"], side) for side in (shared // 2, 4)}
    for side, found in maps.items():
        assert torch.equal(found, _level_output(before["D"], side)), side


def _level_output(network: nn.Module, side: int) -> torch.Tensor:
    """What the discriminator makes of a fixed map of `side` pixels on its way down from there."""
    levels = {int(2 * level_side): level for level_side, level in _levels_by_side(network).items()}
    x = torch.randn(2, 8, side, side, generator=torch.Generator().manual_seed(side))
    while side > 4:
        x = levels[side](x, network.get_buffer("taps"))
        side //= 2
    return x


def _levels_by_side(network: nn.Module) -> dict[int, nn.Module]:
    """D's levels by the side of their output: the last of `layers()` belongs to 4 pixels."""
    owners = list(network.get_submodule("levels").children())
    order = list(network.layers())  # type: ignore[operator]
    down = sorted(owners, key=lambda owner: min(order.index(layer) for layer in owner.children()))
    return {4 << k: owner for k, owner in enumerate(reversed(down))}


def test_other_shapes_are_named_and_begin_anew(source: tuple[Path, dict[str, nn.Module]]) -> None:
    path, _ = source
    networks = make_networks(make_config(64, w_dim=12), 2)
    kept = {key: tensor.clone() for key, tensor in networks["G"].state_dict().items()}
    report = {part.network: part for part in transfer_weights(weights_path(path), networks).networks}
    part = report["G"]
    assert "w_mean" in part.reshaped
    assert all(torch.equal(networks["G"].state_dict()[name], kept[name]) for name in part.reshaped)
    assert not any(torch.equal(networks["G"].state_dict()[name], kept[name]) for name in part.taken)
    assert f"{len(part.reshaped)} of another shape" in part.line()
    assert f"and {len(part.reshaped) - 6} more" in part.line()
    assert report["D"].values_taken == report["D"].values


def test_a_snapshot_that_does_not_fit_is_refused_and_changes_nothing(
    source: tuple[Path, dict[str, nn.Module]],
) -> None:
    path, _ = source
    wider = make_networks(make_config(64, channel_max=16, z_dim=12, w_dim=12), 2)
    kept = {key: tensor.clone() for key, tensor in wider["G"].state_dict().items()}
    with pytest.raises(TransferError, match=r"no weights of G in snapshot-000000640\.safetensors"):
        transfer_weights(weights_path(path), wider)
    assert all(torch.equal(tensor, kept[key]) for key, tensor in wider["G"].state_dict().items())

    dcgan = make_networks(TrainingConfig(algorithm=DCGANConfig(width=4)), 2)
    with pytest.raises(TransferError, match="same algorithm"):
        transfer_weights(weights_path(path), dcgan)


def test_the_digest_is_that_of_the_weights(source: tuple[Path, dict[str, nn.Module]]) -> None:
    path, _ = source
    assert transfer_digest(path) == read_record(path).weights_sha256
    assert transfer_digest(weights_path(path)) == read_record(path).weights_sha256


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"gone\.safetensors"):
        transfer_weights(tmp_path / "gone.safetensors", make_networks(make_config(64), 1))


@pytest.mark.parametrize(("resolution", "refused"), [(64, False), (128, True)])
def test_what_is_frozen_must_have_been_trained(
    source: tuple[Path, dict[str, nn.Module]], resolution: int, refused: bool
) -> None:
    networks = make_networks(make_config(resolution), 2)
    discriminator = networks["D"]
    assert isinstance(discriminator, Discriminator)
    discriminator.freeze(4)
    before = {name: tensor.clone() for name, tensor in networks["G"].state_dict().items()}
    if not refused:
        transfer_weights(weights_path(source[0]), networks)
        return
    with pytest.raises(TransferError, match="freeze_d would keep"):
        transfer_weights(weights_path(source[0]), networks)
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks["G"].state_dict().items())
