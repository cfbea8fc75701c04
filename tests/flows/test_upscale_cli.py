"""`kaobako upscale`, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.upscale import upscale
from models import weights
from models.upscale import engine
from models.upscale.catalogue import NETWORKS, weight_names
from models.upscale.plan import Picture, Target, Upscaled, plan_picture
from models.weights import weight_status

app = typer.Typer()
app.command()(upscale)


class Repeater:
    """Stands for the engine: repeats pixels, and remembers what it was told."""

    engine = "repeater"
    scale = 2
    settings: ClassVar[list[Any]] = []
    noises: ClassVar[list[str]] = []

    def __init__(self, settings: Any) -> None:
        self.settings.append(settings)

    def weights(self, noise: str) -> tuple[str, ...]:
        return (f"{noise} sha256:1",)

    def upscale(self, rgb: np.ndarray, target: Target, noise: str = "none") -> Upscaled:
        self.noises.append(noise)
        plan = plan_picture(Picture(rgb, target, noise), "repeat", 2)
        return plan.complete(plan.begin(rgb).repeat(2**plan.applications, 0).repeat(2**plan.applications, 1))

    def upscale_all(
        self, items: Iterable[Any], load: Callable[[Any], Picture], finish: Callable[[Any, Any], Any]
    ) -> Iterator[Any]:
        for item in items:
            try:
                picture = load(item)
                result: Upscaled | Exception = self.upscale(picture.rgb, picture.target, picture.noise)
            except Exception as error:  # noqa: BLE001  # as the engine does
                result = error
            yield finish(item, result)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Repeater]:
    monkeypatch.setattr(engine, "Upscaler", Repeater)
    monkeypatch.setattr(weights, "weight_status", lambda name: weights.WeightStatus(name, "ok", None, ""))
    monkeypatch.setattr(Repeater, "settings", [])
    monkeypatch.setattr(Repeater, "noises", [])
    return Repeater


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (60, 50), (200, 120, 40)).save(folder / "a.png")
    Image.new("RGB", (30, 40), (20, 120, 240)).save(folder / "sub" / "b.jpg", quality=95)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said_by(result: Result) -> str:
    """An error without the frame around it."""
    return " ".join(result.output.replace("│", " ").split())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_folder_is_enlarged_twofold(pictures: Path, told: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(pictures, out)
    assert result.exit_code == 0, result.output
    assert size_of(out / "a.png") == (120, 100) and size_of(out / "sub" / "b.png") == (60, 80)
    assert "2 of 2 pictures written to" in result.output and "repeater" in result.output
    settings = told.settings[0]
    assert (settings.network, settings.tta, settings.backend, settings.device) == ("upconv7", False, "auto", "auto")
    again = run(pictures, out)
    assert again.exit_code == 0 and "2 were finished before" in again.output


def test_settings_reach_the_engine(pictures: Path, told: Any, tmp_path: Path) -> None:
    options = ["--network", "cunet", "--noise", "3", "--tta", "--device", "cpu", "--backend", "torch", "--workers", "3"]
    result = run(pictures, tmp_path / "out", *options, "--size", "64", "--fit", "crop", "--format", "jpeg")
    assert result.exit_code == 0, result.output
    settings = told.settings[0]
    assert (settings.network, settings.tta, settings.device) == ("cunet", True, "cpu")
    assert (settings.backend, settings.workers, settings.model_file) == ("torch", 3, None)
    assert told.noises == ["3", "3"]
    assert size_of(tmp_path / "out" / "sub" / "b.jpg") == (64, 64)


def test_a_network_of_ones_own(pictures: Path, told: Any, tmp_path: Path) -> None:
    model = tmp_path / "mine.safetensors"
    model.write_bytes(b"weights")
    result = run(pictures, tmp_path / "out", "--model", model)
    assert result.exit_code == 0, result.output
    assert told.settings[0].model_file == model and told.noises == ["none", "none"]
    assert json.loads((tmp_path / "out" / "upscale.json").read_text())["network"] == "mine.safetensors"


def test_bad_pictures_are_named_and_the_exit_code_says_so(pictures: Path, told: Any, tmp_path: Path) -> None:
    (pictures / "bad.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes((pictures / "a.png").read_bytes())
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    result = run(pictures, tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png: zero_byte" in result.output and "1 not enlarged." in result.output
    assert "link.png: a link that leaves" in result.output and "1 skipped." in result.output
    result = run(pictures, tmp_path / "out", "--json")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert (values["pictures"], values["done_before"], values["written"]) == (4, 2, 0)
    assert (list(values["failed"]), list(values["skipped"])) == (["bad.png"], ["link.png"])
    assert values["engine"] == "repeater"


def test_a_link_alone_is_no_failure(pictures: Path, told: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes((pictures / "a.png").read_bytes())
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    assert run(pictures, tmp_path / "out").exit_code == 0


def test_what_looks_enlarged_is_skipped_and_named(pictures: Path, told: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    small.resize((256, 256), Image.Resampling.BICUBIC).save(pictures / "soft.png")
    result = run(pictures, tmp_path / "out", "--min-native-scale", "0.6")
    assert result.exit_code == 0, result.output
    assert "soft.png: it looks enlarged already" in result.output
    assert not (tmp_path / "out" / "soft.png").exists() and (tmp_path / "out" / "a.png").exists()


def test_one_picture(pictures: Path, told: Any, tmp_path: Path) -> None:
    assert run(pictures / "a.png", tmp_path / "large.jpg", "--scale", "3").exit_code == 0
    with Image.open(tmp_path / "large.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (180, 150))
    assert run(pictures / "sub" / "b.jpg", tmp_path / "new").exit_code == 0
    assert size_of(tmp_path / "new" / "b.png") == (60, 80)
    again = run(pictures / "a.png", tmp_path / "large.jpg")
    assert again.exit_code == 1 and "is there already" in str(again.exception)
    assert run(pictures / "a.png", tmp_path / "large.jpg", "--overwrite").exit_code == 0
    assert size_of(tmp_path / "large.jpg") == (120, 100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scale", "2", "--size", "64"], "exclude each other"),
        (["--fit", "crop"], "add --size"),
        (["--scale", "0"], "scale must be"),
        (["--size", "99999"], "size must be"),
        (["--network", "nothing"], "realesrgan-x4plus-anime"),
        (["--network", "realesrgan-x4plus-anime", "--noise", "1"], "choose one of auto, none"),
        (["--network", "cunet-denoise", "--scale", "1"], "choose one of 0, 1, 2, 3"),
        (["--network", "cunet", "--model", "x.pth"], "exclude each other"),
        (["--model", "x.pth"], "is no file"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(
    options: list[str], said: str, pictures: Path, told: Any, tmp_path: Path
) -> None:
    result = run(pictures, tmp_path / "out", *options)
    assert result.exit_code == 2
    assert said in said_by(result)
    assert not told.settings and not (tmp_path / "out").exists()


def test_what_the_engine_refuses_is_said_as_an_error_of_the_options(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "no.pth").write_bytes(b"no network")
    for options, said in (
        (["--device", "cuda:99"], "CUDA devices"),
        (["--device", "nothing"], "device must be"),
        (["--model", str(tmp_path / "no.pth")], "no.pth"),
    ):
        result = run(pictures, tmp_path / "out", "--noise", "none", *options)
        assert result.exit_code == 2 and said in said_by(result), result.output
    assert not (tmp_path / "out").exists()


def test_a_network_that_keeps_the_size_wants_to_be_asked_for_it(
    pictures: Path, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repeater, "scale", 1)
    denoise = ["--network", "cunet-denoise", "--noise", "1"]
    result = run(pictures, tmp_path / "out", *denoise)
    assert result.exit_code == 2 and "keeps the size: add --scale 1" in said_by(result)
    assert run(pictures, tmp_path / "out", *denoise, "--scale", "1").exit_code == 0


def test_a_file_of_another_format_than_asked_for_is_refused(pictures: Path, told: Any, tmp_path: Path) -> None:
    result = run(pictures / "a.png", tmp_path / "x.jpg", "--format", "png")
    assert result.exit_code == 2 and "is no name for a png file" in said_by(result)


def test_both_places_must_be_named(pictures: Path, told: Any) -> None:
    result = run(pictures)
    assert result.exit_code == 2 and "kaobako upscale IN OUT" in said_by(result)


def test_missing_weights_are_all_named_at_once(
    pictures: Path, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "weight_status", lambda name: weights.WeightStatus(name, "missing", None, ""))
    result = run(pictures, tmp_path / "out", "--noise", "2")
    assert isinstance(result.exception, weights.MissingWeightError)
    assert f"kaobako weights fetch {' '.join(sorted(weight_names('upconv7', '2')))}" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_networks_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(name: str) -> weights.WeightStatus:
        return weights.WeightStatus(name, "missing" if "noise3" in name or "realesrgan" in name else "ok", None, "")

    monkeypatch.setattr(weights, "weight_status", status)
    result = run("--list-networks", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == list(NETWORKS)
    assert rows["upconv7"]["here"] == "not for noise 3" and rows["upconv7"]["licence"] == "MIT"
    assert rows["realesrgan-x4plus-anime"] | {"about": ""} == {
        "name": "realesrgan-x4plus-anime",
        "scale": 4,
        "noise": "none",
        "licence": "BSD-3-Clause",
        "here": "no",
        "about": "",
    }
    shown = run("--list-networks").output
    assert "\nrealesrgan-x4plus-anime\n" in shown
    assert "x2, noise none, 0, 1, 2, 3, MIT, weights not for noise 3" in shown


@pytest.mark.parametrize("noise", ["none", "1"])
def test_the_real_engine_enlarges_drawings_better_than_repeating_pixels(noise: str, tmp_path: Path) -> None:
    for name in weight_names("upconv7", noise):
        if (status := weight_status(name)).state != "ok":
            (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)
    y, x = np.mgrid[:128, :128]
    large = np.where(((x - 60) ** 2 + (y - 70) ** 2 < 40**2)[:, :, None], (220, 60, 90), (250, 240, 230))
    large = np.where((abs(x - y) < 4)[:, :, None], (20, 20, 40), large)
    alpha = np.clip(255 - 40 * (np.hypot(x - 64, y - 64) - 55), 0, 255)
    sprite = Image.fromarray(np.dstack([large, alpha]).astype(np.uint8))
    (tmp_path / "in").mkdir()
    small = sprite.resize((64, 64), Image.Resampling.BOX)
    small.save(tmp_path / "in" / "sprite.png")
    result = run(tmp_path / "in", tmp_path / "out", "--noise", noise, "--workers", "1", "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "sprite.png") as image:
        made, mode = np.asarray(image).astype(float), image.mode
    repeated = np.asarray(small.resize((128, 128), Image.Resampling.NEAREST)).astype(float)
    truth = np.asarray(sprite).astype(float)
    seen = truth[:, :, 3] == 255
    assert mode == "RGBA"
    assert np.mean((made - truth)[seen] ** 2) < 0.5 * np.mean((repeated - truth)[seen] ** 2)
    assert np.mean((made - truth)[:, :, 3] ** 2) < 0.5 * np.mean((repeated - truth)[:, :, 3] ** 2)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, typer; from flows.cli.upscale import upscale; "
        "print([n for n in ('cv2', 'torch', 'ncnn', 'prefect', 'PIL', 'pyarrow', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
