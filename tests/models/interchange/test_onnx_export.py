"""ONNX files of generators: what onnxruntime makes of them is what torch makes, in any batch, at any psi."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from models.gan import dcgan
from models.gan.latents import draw_latents
from models.gan.stylegan2 import initialise
from models.interchange import onnx_export
from models.interchange.onnx_export import OnnxError, check_onnx, export_onnx, load_in_float32, paint_with_torch
from models.sampling.generator import LoadedGenerator
from models.training.config import DatasetRef, DCGANConfig, Precision, R3GANConfig, StyleGAN2Config, TrainingConfig
from models.training.networks import build_generator
from models.training.snapshot import save_snapshot

DATASET = DatasetRef("blobs", 2, "ab" * 32, 10)
STYLE = StyleGAN2Config(z_dim=16, w_dim=12, mapping_layers=2, channel_base=128, channel_max=16)


def load_made(config: TrainingConfig, folder: Path) -> LoadedGenerator:
    """A generator with random weights, through a snapshot; of StyleGAN2 with a mean and noise that show."""
    network: Any = build_generator(config)
    rng = torch.Generator().manual_seed(0)
    (dcgan.initialise if isinstance(config.algorithm, DCGANConfig) else initialise)(network, rng)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and not isinstance(config.algorithm, DCGANConfig):
                tensor.add_(torch.randn(tensor.shape, generator=rng) * 0.2)
    return load_in_float32(save_snapshot(folder, 4000, config, DATASET, {"G_ema": network}, {}))


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory) -> LoadedGenerator:
    """16 rows x 12 columns, RGB, three classes, trained in bfloat16."""
    config = TrainingConfig(algorithm=STYLE, resolution=16, aspect=(4, 3), labels=3, precision=Precision.BFLOAT16)
    return load_made(config, tmp_path_factory.mktemp("styles"))


@pytest.fixture(scope="module")
def exported(styles: LoadedGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "generator.onnx"
    export_onnx(styles, path, {"weights_sha256": "cd" * 32})
    return path


@pytest.fixture(scope="module")
def run_file(exported: Path) -> Callable[..., np.ndarray]:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])

    def run(z: np.ndarray, psi: float, label: np.ndarray) -> np.ndarray:
        images: np.ndarray = session.run(["images"], {"z": z, "psi": np.array(psi, np.float32), "label": label})[0]
        return images

    return run


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("psi", [-0.5, 0.0, 0.7, 1.0, 1.3])
def test_the_file_makes_the_networks_pictures(
    run_file: Callable[..., np.ndarray], styles: LoadedGenerator, count: int, psi: float
) -> None:
    z, label = draw_latents(range(count), 16), np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    with torch.inference_mode():
        expected = styles.network(torch.from_numpy(z), torch.from_numpy(label), psi=psi).numpy()
    images = run_file(z, psi, label)
    assert images.shape == (count, 3, 16, 12)
    assert images.dtype == np.float32
    assert np.abs(expected).max() > 1  # nothing is clamped on either side
    np.testing.assert_allclose(images, expected, atol=1e-4)


def test_truncation_and_label_are_inputs(run_file: Callable[..., np.ndarray]) -> None:
    z, classes = draw_latents(range(3), 16), np.eye(3, dtype=np.float32)
    mean = run_file(z, 0.0, classes)
    assert np.abs(mean - mean[:1]).max() < 1e-5  # at psi 0 neither z nor label is left
    same = run_file(np.repeat(z[:1], 3, axis=0), 1.0, classes)
    assert np.abs(same[0] - same[1]).max() > 0.05


def test_all_is_float32_whatever_it_was_trained_in(styles: LoadedGenerator, exported: Path) -> None:
    assert styles.config.precision is Precision.BFLOAT16
    network: Any = styles.network
    assert network.half_dtype is None
    kinds = {tensor.data_type for tensor in onnx.load(exported).graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert dims == {"z": ["batch", 16], "psi": [], "label": ["batch", 3], "images": ["batch", 3, 16, 12]}
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["dataset"] == "blobs@v2"
    assert said["dataset_digest"] == "ab" * 32
    assert said["weights_sha256"] == "cd" * 32
    assert (said["colours"], said["range"], said["nimg"], said["algorithm"]) == ("RGB", "-1..1", "4000", "stylegan2")
    assert "not clamped" in said["outputs"]
    data = exported.read_bytes()
    for trace in (str(Path(onnx_export.__file__).parent), str(Path(torch.__file__).parent), "stack_trace", ".py"):
        assert trace.encode() not in data


def test_the_check_compares_sixteen_seeds_alone_and_in_company(styles: LoadedGenerator, exported: Path) -> None:
    found = check_onnx(exported, styles)
    assert found.pictures == 16 + 4  # four of them alone, those at psi 1 as well
    assert 0 < found.largest < 1e-4
    assert found.runtime == f"onnxruntime {onnxruntime.__version__}"
    known = check_onnx(exported, styles, range(4), paint_with_torch(styles, range(4)))
    assert known.pictures == 4 + 2


@pytest.mark.parametrize("value", [0.01, float("nan")])
def test_a_file_that_differs_is_refused_and_removed(
    styles: LoadedGenerator, exported: Path, tmp_path: Path, value: float
) -> None:
    model = onnx.load(exported)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("levels.2.to_rgb.weight")]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(value), tensor.name))
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    with pytest.raises(OnnxError, match=r"differ from torch's by (0\.\d+|nan), more than 0\.001"):
        check_onnx(path, styles)
    assert not path.exists()


def test_a_file_that_cannot_be_loaded_or_run_is_refused_and_removed(
    styles: LoadedGenerator, exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(exported.read_bytes()[:-5000])
    with pytest.raises(OnnxError, match=r"cut.onnx is not this network and was removed: onnxruntime cannot load it"):
        check_onnx(path, styles)
    assert not path.exists()
    shutil.copy(exported, path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 17
    model.graph.input[0].name = "latent"
    for node in model.graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = "latent" if name == "z" else name
    onnx.save(model, path)
    with pytest.raises(OnnxError, match="onnxruntime cannot"):
        check_onnx(path, styles)
    assert not path.exists()


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(algorithm=DCGANConfig(width=4, z_dim=8), resolution=16, channels=1),
        TrainingConfig(
            algorithm=R3GANConfig(z_dim=8, channel_base=256, channel_max=16, blocks=1),
            resolution=16,
            labels=2,
            channels=4,
        ),
    ],
    ids=["dcgan", "r3gan"],
)
def test_generators_without_styles_have_no_psi(config: TrainingConfig, tmp_path: Path) -> None:
    generator = load_made(config, tmp_path)
    path = tmp_path / "generator.onnx"
    export_onnx(generator, path)
    assert check_onnx(path, generator).largest < 1e-4
    names = [value.name for value in onnx.load(path).graph.input]
    assert names == (["z", "label"] if config.labels else ["z"])
    first = path.read_bytes()
    export_onnx(generator, path)
    assert path.read_bytes() == first  # the same network gives the same file


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_one_sentence(
    styles: LoadedGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OnnxError, match=rf"^{package} is not installed: run pip install 'kaobako\[onnx\]'"):
        export_onnx(styles, tmp_path / "generator.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_nothing_is_checked_and_it_says_so(
    styles: LoadedGenerator, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxError, match="onnxruntime is not installed"):
        check_onnx(exported, styles)
