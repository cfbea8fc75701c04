"""Our StyleGAN2 in the published layout: names listed here by hand, values bit-equal, headers that rebuild it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from models.gan.stylegan2 import Discriminator, Generator, initialise
from models.interchange.stylegan2_export import LayoutError, Network, init_kwargs, publish_tensors, write_network
from models.interchange.stylegan2_names import NetworkName, to_own
from models.training.config import DCGANConfig, StyleGAN2Config, TrainingConfig
from models.training.networks import build_discriminator, build_generator

STYLE = StyleGAN2Config(z_dim=12, w_dim=10, mapping_layers=2, channel_base=128, channel_max=16, mbstd_group=2)
CONFIG = TrainingConfig(algorithm=STYLE, resolution=16, labels=3)

# Channels at 4, 8, 16: 16, 16, 8. Written by hand from the published classes' layout.
G_SHAPES = {
    "mapping.w_avg": (10,),
    "mapping.embed.weight": (10, 3),
    "mapping.embed.bias": (10,),
    "mapping.fc0.weight": (10, 22),
    "mapping.fc0.bias": (10,),
    "mapping.fc1.weight": (10, 10),
    "mapping.fc1.bias": (10,),
    "synthesis.b4.const": (16, 4, 4),
    "synthesis.b4.resample_filter": (4, 4),
    "synthesis.b4.conv1.weight": (16, 16, 3, 3),
    "synthesis.b4.conv1.bias": (16,),
    "synthesis.b4.conv1.noise_strength": (),
    "synthesis.b4.conv1.noise_const": (4, 4),
    "synthesis.b4.conv1.resample_filter": (4, 4),
    "synthesis.b4.conv1.affine.weight": (16, 10),
    "synthesis.b4.conv1.affine.bias": (16,),
    "synthesis.b4.torgb.weight": (3, 16, 1, 1),
    "synthesis.b4.torgb.bias": (3,),
    "synthesis.b4.torgb.affine.weight": (16, 10),
    "synthesis.b4.torgb.affine.bias": (16,),
    "synthesis.b8.resample_filter": (4, 4),
    "synthesis.b8.conv0.weight": (16, 16, 3, 3),
    "synthesis.b8.conv0.bias": (16,),
    "synthesis.b8.conv0.noise_strength": (),
    "synthesis.b8.conv0.noise_const": (8, 8),
    "synthesis.b8.conv0.resample_filter": (4, 4),
    "synthesis.b8.conv0.affine.weight": (16, 10),
    "synthesis.b8.conv0.affine.bias": (16,),
    "synthesis.b8.conv1.weight": (16, 16, 3, 3),
    "synthesis.b8.conv1.bias": (16,),
    "synthesis.b8.conv1.noise_strength": (),
    "synthesis.b8.conv1.noise_const": (8, 8),
    "synthesis.b8.conv1.resample_filter": (4, 4),
    "synthesis.b8.conv1.affine.weight": (16, 10),
    "synthesis.b8.conv1.affine.bias": (16,),
    "synthesis.b8.torgb.weight": (3, 16, 1, 1),
    "synthesis.b8.torgb.bias": (3,),
    "synthesis.b8.torgb.affine.weight": (16, 10),
    "synthesis.b8.torgb.affine.bias": (16,),
    "synthesis.b16.resample_filter": (4, 4),
    "synthesis.b16.conv0.weight": (8, 16, 3, 3),
    "synthesis.b16.conv0.bias": (8,),
    "synthesis.b16.conv0.noise_strength": (),
    "synthesis.b16.conv0.noise_const": (16, 16),
    "synthesis.b16.conv0.resample_filter": (4, 4),
    "synthesis.b16.conv0.affine.weight": (16, 10),
    "synthesis.b16.conv0.affine.bias": (16,),
    "synthesis.b16.conv1.weight": (8, 8, 3, 3),
    "synthesis.b16.conv1.bias": (8,),
    "synthesis.b16.conv1.noise_strength": (),
    "synthesis.b16.conv1.noise_const": (16, 16),
    "synthesis.b16.conv1.resample_filter": (4, 4),
    "synthesis.b16.conv1.affine.weight": (8, 10),
    "synthesis.b16.conv1.affine.bias": (8,),
    "synthesis.b16.torgb.weight": (3, 8, 1, 1),
    "synthesis.b16.torgb.bias": (3,),
    "synthesis.b16.torgb.affine.weight": (8, 10),
    "synthesis.b16.torgb.affine.bias": (8,),
}
D_SHAPES = {
    "b16.resample_filter": (4, 4),
    "b16.fromrgb.weight": (8, 3, 1, 1),
    "b16.fromrgb.bias": (8,),
    "b16.fromrgb.resample_filter": (4, 4),
    "b16.conv0.weight": (8, 8, 3, 3),
    "b16.conv0.bias": (8,),
    "b16.conv0.resample_filter": (4, 4),
    "b16.conv1.weight": (16, 8, 3, 3),
    "b16.conv1.bias": (16,),
    "b16.conv1.resample_filter": (4, 4),
    "b16.skip.weight": (16, 8, 1, 1),
    "b16.skip.resample_filter": (4, 4),
    "b8.resample_filter": (4, 4),
    "b8.conv0.weight": (16, 16, 3, 3),
    "b8.conv0.bias": (16,),
    "b8.conv0.resample_filter": (4, 4),
    "b8.conv1.weight": (16, 16, 3, 3),
    "b8.conv1.bias": (16,),
    "b8.conv1.resample_filter": (4, 4),
    "b8.skip.weight": (16, 16, 1, 1),
    "b8.skip.resample_filter": (4, 4),
    "b4.conv.weight": (16, 17, 3, 3),
    "b4.conv.bias": (16,),
    "b4.conv.resample_filter": (4, 4),
    "b4.fc.weight": (16, 256),
    "b4.fc.bias": (16,),
    "b4.out.weight": (16, 16),
    "b4.out.bias": (16,),
    "mapping.embed.weight": (16, 3),
    "mapping.embed.bias": (16,),
    **{f"mapping.fc{k}.weight": (16, 16) for k in range(8)},
    **{f"mapping.fc{k}.bias": (16,) for k in range(8)},
}


def make_network(network: Network, config: TrainingConfig, seed: int = 0) -> torch.nn.Module:
    made = build_discriminator(config) if network == "D" else build_generator(config)
    rng = torch.Generator().manual_seed(seed)
    initialise(made, rng)
    with torch.no_grad():  # no two tensors alike, biases and strengths included
        for tensor in made.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=rng) * 0.1)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize(("network", "shapes"), [("G", G_SHAPES), ("D", D_SHAPES)])
def test_tensors_are_exactly_those_of_the_published_class(
    network: NetworkName, shapes: dict[str, tuple[int, ...]]
) -> None:
    published = publish_tensors(network, make_network(network, CONFIG).state_dict(), CONFIG)
    assert {name: tuple(tensor.shape) for name, tensor in published.items()} == shapes
    assert {tensor.dtype for tensor in published.values()} == {torch.float32}


def test_a_generator_of_32_pixels_has_the_75_tensors_that_were_counted_in_the_original() -> None:
    config = TrainingConfig(algorithm=STYLE, resolution=32)
    published = publish_tensors("G", make_network("G", config).state_dict(), config)
    assert len(published) == 75


def test_filters_are_the_one_of_the_paper() -> None:
    published = publish_tensors("D", make_network("D", CONFIG).state_dict(), CONFIG)
    rows = [[1, 3, 3, 1], [3, 9, 9, 3], [3, 9, 9, 3], [1, 3, 3, 1]]
    filters = [tensor for name, tensor in published.items() if name.endswith("resample_filter")]
    assert len(filters) == 10
    assert all(torch.equal(tensor, torch.tensor(rows) / 64) for tensor in filters)


def test_a_plain_discriminator_has_no_skips() -> None:
    plain = CONFIG.model_copy(update={"algorithm": STYLE.model_copy(update={"d_architecture": "orig"})})
    published = publish_tensors("D", make_network("D", plain).state_dict(), plain)
    assert set(published) == {name for name in D_SHAPES if ".skip." not in name}
    assert init_kwargs("D", plain)["architecture"] == "orig"


def test_files_hold_every_bit_and_the_way_back(tmp_path: Path) -> None:
    networks: tuple[Network, ...] = ("G_ema", "G", "D")
    for seed, network in enumerate(networks):
        own = make_network(network, CONFIG, seed).state_dict()
        path = tmp_path / f"{network}.safetensors"
        write_network(network, own, CONFIG, path, {"dataset": "blobs@v1"})
        back = load_file(path)
        names = to_own("D" if network == "D" else "G", back)
        returned = {names[name]: tensor for name, tensor in back.items() if name in names}
        assert returned.keys() == own.keys()
        assert all(torch.equal(returned[name], own[name]) for name in own)
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        assert header["network"] == network
        assert header["class"] == ("Discriminator" if network == "D" else "Generator")
        assert header["dataset"] == "blobs@v1"
        assert header.get("num_ws") == (None if network == "D" else "6")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["D.safetensors", "G.safetensors", "G_ema.safetensors"]


def test_a_reader_rebuilds_the_generator_from_the_file_alone(tmp_path: Path) -> None:
    """No config, no record: the arguments in the header, and the pictures are the same to the bit."""
    network = make_network("G", CONFIG)
    write_network("G_ema", network.state_dict(), CONFIG, tmp_path / "G_ema.safetensors")
    with safe_open(tmp_path / "G_ema.safetensors", framework="pt") as file:
        said = json.loads(file.metadata()["init_kwargs"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    names = to_own("G", tensors)
    rebuilt = Generator(
        z_dim=said["z_dim"],
        w_dim=said["w_dim"],
        c_dim=said["c_dim"],
        width=said["img_resolution"],
        height=said["img_resolution"],
        channels=said["img_channels"],
        mapping_layers=said["mapping_kwargs"]["num_layers"],
        channel_base=said["synthesis_kwargs"]["channel_base"],
        channel_max=said["synthesis_kwargs"]["channel_max"],
        half_resolutions=said["synthesis_kwargs"]["num_fp16_res"],
        conv_clamp=said["synthesis_kwargs"]["conv_clamp"],
    )
    rebuilt.load_state_dict({names[name]: tensor for name, tensor in tensors.items() if name in names})
    z, c = torch.randn(2, 12, generator=torch.Generator().manual_seed(5)), torch.eye(3)[:2]
    assert torch.equal(rebuilt.eval()(z, c, psi=0.5), network(z, c, psi=0.5))


def test_a_reader_rebuilds_the_discriminator_of_another_width() -> None:
    """D's widths may differ from G's; its group is a multiple of what it sees together."""
    style = STYLE.model_copy(update={"d_channel_base": 64, "d_channel_max": 8, "mbstd_features": 2})
    config = TrainingConfig(algorithm=style, resolution=16, channels=1)
    network = make_network("D", config)
    said = init_kwargs("D", config)
    rebuilt = Discriminator(
        c_dim=said["c_dim"],
        width=said["img_resolution"],
        height=said["img_resolution"],
        channels=said["img_channels"],
        channel_base=said["channel_base"],
        channel_max=said["channel_max"],
        architecture=said["architecture"],
        half_resolutions=said["num_fp16_res"],
        conv_clamp=said["conv_clamp"],
        mbstd_group=said["epilogue_kwargs"]["mbstd_group_size"],
        mbstd_features=said["epilogue_kwargs"]["mbstd_num_channels"],
    )
    rebuilt.load_state_dict(network.state_dict())
    pictures = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(6))
    assert torch.equal(rebuilt.eval()(pictures), network(pictures))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (TrainingConfig(algorithm=STYLE, resolution=16, aspect=(4, 3)), "this one 12 x 16 from 3 x 4"),
        (TrainingConfig(algorithm=STYLE, resolution=16, aspect=(8, 8)), "this one 16 x 16 from 8 x 8"),
        (TrainingConfig(algorithm=DCGANConfig(), resolution=16), "this is a dcgan: use onnx"),
        (
            TrainingConfig(algorithm=STYLE.model_copy(update={"normalize_latent": False}), resolution=16),
            "normalize_latent = false",
        ),
    ],
)
def test_what_the_layout_cannot_say_is_refused_by_name(config: TrainingConfig, said: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=said):
        write_network("G_ema", {}, config, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_another_network_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tensors of our StyleGAN2 G"):
        write_network("G", make_network("D", CONFIG).state_dict(), CONFIG, tmp_path / "G.safetensors")
    assert list(tmp_path.iterdir()) == []
