"""Figures of quality of a run: what is written, what is measured again, and what is refused.

A cheap extractor stands in for the network; one test runs the real one where its weights were fetched.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import tasks.metric_features
import tasks.metric_lines
import tasks.metrics
import tasks.neighbours
from datasets.errors import KaobakoError, StoreError
from datasets.gc import collect_garbage
from datasets.picture_folder import list_folder
from datasets.store import Store
from models.gan import dcgan, stylegan2
from models.gan.pictures import resize
from models.interchange.imported_run import ORIGIN_FILE
from models.metrics.distances import kernel_distance
from models.metrics.extractors import load_extractor
from models.sampling.generator import load_generator
from models.sampling.images import sample
from models.sampling.settings import Noise, SamplingError, SamplingSettings
from models.training.config import DatasetRef, DCGANConfig, DeviceChoice, StyleGAN2Config, TrainingConfig
from models.training.metrics_file import MetricsFileError, read_metrics
from models.training.networks import build_generator
from models.training.run import RunFolder
from models.training.snapshot import load_weights, save_snapshot, weights_path
from models.weights import MissingWeightError, weight_status
from tasks.metric_features import draw_fakes, measure_fakes
from tasks.metric_lines import FIGURES, MEMORISED, name_figure
from tasks.metrics import MetricsParams, MetricsReport, measure_run
from tasks.train import DATA_FILE, open_training, plan_training, run_training
from tasks.train_data import FolderData
from tasks.train_params import TrainParams

SIDE = 16
REALS = 40


class Colours:
    """An extractor of sorts: mean colours of the quarters of a picture. Counts what it was shown."""

    name = "colours"
    digest = hashlib.sha256(b"colours").hexdigest()
    features = 12

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        assert pictures.dtype == np.uint8
        assert pictures.shape[3] == 3
        self.seen += len(pictures)
        small = [cv2.resize(picture, (2, 2), interpolation=cv2.INTER_AREA).reshape(-1) for picture in pictures]
        return np.asarray(small, np.float32) / 255


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Colours:
    extractor = Colours()
    for module in (tasks.metrics, tasks.metric_lines):
        monkeypatch.setattr(module, "load_extractor", lambda spec, device, folders: extractor)
    return extractor


def draw_pictures(folder: Path, numbers: Sequence[int], side: int = 2 * SIDE) -> Path:
    """Blots on a ground, one file for each number; a number's picture is always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(picture).save(folder / f"{number:04d}.png")
    return folder


def write_run(folder: Path, pictures: Path, algorithm: Any, initialise: Callable[..., None], **config: Any) -> Path:
    """A run that was never trained, on a folder of pictures."""
    settings = TrainingConfig(algorithm=algorithm, resolution=SIDE, device=DeviceChoice.CPU, **config)
    found = FolderData(list_folder(pictures))
    _, dataset = found.open(settings, None, TrainParams())
    run = RunFolder(folder)
    run.write_config(settings, dataset, torch.device("cpu"))
    add_snapshot(run, settings, dataset, initialise, 0)
    (folder / DATA_FILE).write_text(json.dumps(found.describe()), encoding="utf-8")
    return folder


def add_snapshot(
    run: RunFolder, config: TrainingConfig, dataset: DatasetRef, initialise: Callable[..., None], nimg: int
) -> None:
    network = build_generator(config)
    initialise(network, torch.Generator().manual_seed(nimg))
    save_snapshot(run.snapshots, nimg, config, dataset, {"G_ema": network}, {})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures", range(REALS))


@pytest.fixture
def plain(tmp_path: Path, pictures: Path) -> Path:
    """The folder of a DCGAN run."""
    return write_run(tmp_path / "plain", pictures, DCGANConfig(z_dim=8, width=4), dcgan.initialise)


STYLES = StyleGAN2Config(z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)


def few(**changes: Any) -> MetricsParams:
    return MetricsParams.model_validate({"samples": 48, **changes})


def test_what_is_written_says_what_was_measured(plain: Path, store: Store, colours: Colours) -> None:
    heard: list[tuple[str, int, int]] = []
    report = measure_run(store, plain, "", few(), lambda *at: heard.append(at))
    assert report.lines == read_metrics(plain)
    by_figure = {line["figure"]: line for line in report.lines}
    assert list(by_figure) == ["kid", "fid", "precision", "recall", "memorised", "memorised_pixels"]
    kid = by_figure["kid"]
    digest = RunFolder(plain).read_config()[1].digest
    assert kid["name"] == f"kid48_colours_16x16_pictures-{digest[:12]}"
    assert (kid["fakes"], kid["reals"], kid["seeds"], kid["psi"], kid["nimg"]) == (48, REALS, "0-47", 1.0, 0)
    assert kid["reference_digest"] == digest
    assert kid["extractor_sha256"] == Colours.digest
    assert len(kid["weights_sha256"]) == 64
    assert kid["error"] > 0
    assert abs(kid["baseline"]) < 5 * kid["baseline_error"]
    for figure in ("fid", "precision", "recall"):
        assert "depend on the counts, here 40 reals and 48 fakes" in by_figure[figure]["caution"]
        assert by_figure[figure]["baseline"] is None  # that of halves is one of other counts
    assert kid["caution"] == ""
    assert 0 <= by_figure["memorised"]["value"] <= 1
    assert set(report.pictures) == {"neighbours", "neighbours-histogram"}
    assert all(Path(path).is_file() for path in report.pictures.values())
    assert len(report.verdicts) == 2
    assert {what for what, _, _ in heard} == {"files of pictures", "reals", "reals, mirrored", "fakes", "neighbours"}
    assert all(done <= total for _, done, total in heard)
    assert heard.index(("reals", 0, REALS)) < heard.index(("reals", REALS, REALS)) < heard.index(("fakes", 48, 48))
    assert max(k for k, (what, *_) in enumerate(heard) if what.startswith("reals")) < heard.index(("fakes", 48, 48))
    assert MetricsReport.from_summary(json.loads(json.dumps(report.summary()))) == report


def test_figures_are_those_of_the_pictures_themselves(plain: Path, store: Store, colours: Colours) -> None:
    """Reals read and reduced as the training reads them, never mirrored; fakes as `kaobako sample` makes them."""
    report = measure_run(store, plain, "", few(neighbours=False))
    config, _ = RunFolder(plain).read_config()
    assert config.mirror
    reader, _ = FolderData(list_folder(plain.parent / "pictures")).open(
        config.model_copy(update={"mirror": False}), None, TrainParams()
    )
    shown = next(reader.batches(REALS, seed=0)).transpose(0, 2, 3, 1)
    fakes = np.stack(list(sample(load_generator(plain), range(48))))
    expected = kernel_distance(colours.extract(shown), colours.extract(fakes))
    assert report.lines[0]["value"] == pytest.approx(expected.value, rel=1e-9)
    assert report.lines[0]["error"] == pytest.approx(expected.error, rel=1e-9)


def test_the_same_again_is_not_measured_again(plain: Path, store: Store, colours: Colours) -> None:
    first = measure_run(store, plain, "", few())
    written = (plain / "metrics.jsonl").read_bytes()
    seen = colours.seen
    assert measure_run(store, plain, "", few()) == first
    assert colours.seen == seen
    assert (plain / "metrics.jsonl").read_bytes() == written

    again = measure_run(store, plain, "", few(again=True))
    assert colours.seen == seen + 48 + 48  # the fakes and their mirror images; the reals are known
    stable = [{k: v for k, v in line.items() if k not in ("seconds", "measured_at")} for line in again.lines]
    assert stable == [{k: v for k, v in line.items() if k not in ("seconds", "measured_at")} for line in first.lines]
    assert len(read_metrics(plain)) == 6

    lost = Path(first.pictures["neighbours"])
    lost.unlink()
    measure_run(store, plain, "", few())
    assert lost.is_file()
    measure_run(store, plain, "", few(seed=100, neighbours=False))
    assert len(read_metrics(plain)) == 10


def test_pictures_are_those_of_their_own_figures(plain: Path, store: Store, colours: Colours) -> None:
    first = measure_run(store, plain, "", few())
    shown = Path(first.pictures["neighbours"]).read_bytes()
    other = measure_run(store, plain, "", few(seed=500))
    assert Path(other.pictures["neighbours"]).read_bytes() != shown
    seen = colours.seen
    known = measure_run(store, plain, "", few())
    assert known.pictures == first.pictures
    assert Path(known.pictures["neighbours"]).read_bytes() == shown
    assert colours.seen == seen


def test_only_what_is_missing_is_measured(
    plain: Path, store: Store, colours: Colours, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tasks.metrics, tasks.neighbours):
        monkeypatch.setattr(module, "COMPARED", 16)
    measure_run(store, plain, "", few(neighbours=False))
    seen = colours.seen
    report = measure_run(store, plain, "", few())
    assert colours.seen == seen + 16 + 16 + 16  # fakes, their mirror images, and those of the reals in the yardstick
    by_figure = {line["figure"]: line for line in report.lines}
    assert [line["figure"] for line in report.lines] == [*FIGURES, *MEMORISED]
    assert (by_figure["memorised"]["fakes"], by_figure["memorised"]["seeds"]) == (16, "0-15")
    assert by_figure["memorised"]["name"].startswith("memorised16_colours_16x16_pictures-")
    assert (by_figure["kid"]["fakes"], by_figure["kid"]["seeds"]) == (48, "0-47")


def test_an_interrupted_look_at_the_reals_is_not_lost(
    plain: Path, store: Store, colours: Colours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.metric_features, "PART", 8)
    extract = colours.extract

    def interrupt(pictures: np.ndarray) -> np.ndarray:
        if colours.seen == 24:
            raise KeyboardInterrupt
        return extract(pictures)

    monkeypatch.setattr(colours, "extract", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure_run(store, plain, "", few(neighbours=False))
    monkeypatch.setattr(colours, "extract", extract)
    measure_run(store, plain, "", few(neighbours=False))
    assert colours.seen == REALS + 48


def test_a_damaged_record_is_found_before_anything_is_measured(plain: Path, store: Store, colours: Colours) -> None:
    (plain / "metrics.jsonl").write_text("garbage\n", encoding="utf-8")
    for again in (True, False):
        with pytest.raises(MetricsFileError, match=r"line 1 is no JSON .*delete that line"):
            measure_run(store, plain, "", few(again=again))
    assert colours.seen == 0
    (plain / "metrics.jsonl").write_text('{"nimg": null}\n{"figure": "kid", "psi": [1]}\n', encoding="utf-8")
    measure_run(store, plain, "", few(neighbours=False))
    assert len(read_metrics(plain)) == 6


def test_only_new_reals_are_looked_at(plain: Path, store: Store, colours: Colours, tmp_path: Path) -> None:
    asked = few(neighbours=False, again=True)
    other = draw_pictures(tmp_path / "other", range(100, 130))

    def looked_at(against: Path) -> int:
        before = colours.seen
        measure_run(store, plain, str(against), asked)
        return colours.seen - before - 48

    assert looked_at(other) == 30
    assert looked_at(other) == 0
    draw_pictures(other, [200, 201])
    Image.open(other / "0100.png").save(other / "copy.png")
    assert looked_at(other) == 2
    (cached,) = (plain / "cache").glob("features-1/*/")
    value = measure_run(store, plain, str(other), asked).lines[0]["value"]
    for path in cached.glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    assert looked_at(other) == 32
    assert measure_run(store, plain, str(other), asked).lines[0]["value"] == value


def test_a_next_version_costs_only_what_is_new(
    plain: Path, store: Store, colours: Colours, build: Callable[..., Any], tmp_path: Path, draw: Any
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        Image.fromarray(draw(number)).save(source / f"{number}.png")
    build()
    asked = few(neighbours=False)
    first = measure_run(store, plain, "faces@v1", asked)
    assert first.lines[0]["name"].startswith("kid48_colours_16x16_faces@v1-")
    assert first.lines[0]["reals"] == 12
    for number in range(12, 15):
        Image.fromarray(draw(number)).save(source / f"{number}.png")
    build()
    before = colours.seen
    assert measure_run(store, plain, "faces", asked).lines[0]["reals"] == 15
    assert colours.seen == before + 48 + 3
    assert not (plain / "cache").exists()
    (cached, _) = store.cache.glob("features-1/*/*.parquet")
    assert collect_garbage(store, delete=True, grace_hours=0).unknown == []
    assert cached.is_file()


def test_held_out_pictures_that_were_trained_on_are_left_out(
    plain: Path, store: Store, colours: Colours, tmp_path: Path
) -> None:
    held_out = draw_pictures(tmp_path / "held", [*range(5), *range(300, 320)])
    report = measure_run(store, plain, "", few(held_out=str(held_out)))
    assert "5 of 25 held-out pictures were trained on, and left out" in report.notes
    (line,) = (line for line in report.lines if line["figure"] == "memorised")
    assert line["yardstick"] == "20 held-out pictures of held"
    assert line["held_out_digest"]
    known = draw_pictures(tmp_path / "known", range(10))
    with pytest.raises(KaobakoError, match="all pictures of known were trained on"):
        measure_run(store, plain, "", few(held_out=str(known)))


def test_a_generator_that_repeats_its_pictures_is_caught(
    store: Store, colours: Colours, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def repeat(generator: Any, seeds: Sequence[int], labels: Any, settings: Any) -> Any:
        for seed in seeds:
            rng = np.random.default_rng(1000 + seed)
            number = seed % 300 if first is None else first + seed
            path = draw_pictures(tmp_path / "drawn", [number], SIDE) / f"{number:04d}.png"
            noise = rng.normal(0, 2, (SIDE, SIDE, 3))
            shown = np.asarray(Image.open(path))
            shown = shown[:, ::-1] if seed % 2 else shown  # the training mirrors
            yield np.clip(shown + noise, 0, 255).astype(np.uint8)

    for module in (tasks.metric_features, tasks.neighbours):
        monkeypatch.setattr(module, "draw_fakes", repeat)
    pictures = draw_pictures(tmp_path / "pictures", range(300))
    run = write_run(tmp_path / "run", pictures, DCGANConfig(z_dim=8, width=4), dcgan.initialise)
    first: int | None = None
    for caught in (True, False):
        first = None if caught else 5000
        report = measure_run(store, run, "", few(samples=120, again=True))
        for line in report.lines[4:]:
            assert (line["value"] > 0.9) is caught, line
            assert ("repeats training pictures" in line["verdict"]) is caught
            assert ("no sign of memorisation" in line["verdict"]) is not caught
            assert (line["fakes"], line["reals"], line["threshold_reals"]) == (120, 300, 300)


def test_every_snapshot_gives_a_curve(plain: Path, store: Store, colours: Colours) -> None:
    run = RunFolder(plain)
    config, dataset = run.read_config()
    for nimg in (4000, 8000):
        add_snapshot(run, config, dataset, dcgan.initialise, nimg)
    weights_path(run.snapshot_path(4000)).write_bytes(b"damaged")
    report = measure_run(store, plain, "", few(all_snapshots=True, neighbours=False))
    assert [line["nimg"] for line in report.curve] == [0, 8000]
    assert any("snapshot-000004000.safetensors is not what its record says" in note for note in report.notes)
    assert Path(report.pictures["curve"]) == plain / "metrics" / "kid.png"
    seen = colours.seen
    add_snapshot(run, config, dataset, dcgan.initialise, 12000)
    report = measure_run(store, plain, "", few(all_snapshots=True, neighbours=False))
    assert [line["nimg"] for line in report.curve] == [0, 8000, 12000]
    assert colours.seen == seen + 48
    with pytest.raises(KaobakoError, match="name the run"):
        measure_run(store, run.snapshot_path(8000), "", few(all_snapshots=True))


def test_psi_is_part_of_the_record(plain: Path, pictures: Path, store: Store, tmp_path: Path, colours: Colours) -> None:
    styles = write_run(tmp_path / "styles", pictures, STYLES, stylegan2.initialise, channels=4)
    values = {}
    for psi in (1.0, 0.5):
        (line, *_) = measure_run(store, styles, "", few(psi=psi, neighbours=False)).lines
        assert (line["psi"], line["noise"]) == (psi, "random")
        assert line["name"].endswith("_psi0.5") is (psi == 0.5)
        values[psi] = line["value"]
    assert values[1.0] != values[0.5]
    with pytest.raises(KaobakoError, match=r"--psi must be -10 to 10, got 1e\+300"):
        measure_run(store, styles, "", few(psi=1e300))
    with pytest.raises(SamplingError, match=r"truncation \(--psi\) needs a network with styles"):
        measure_run(store, plain, "", few(psi=0.5))


def test_names_differ_where_figures_must_not_be_compared() -> None:
    config = TrainingConfig(algorithm=STYLES, resolution=64, aspect=(4, 3))
    dataset = DatasetRef("faces", 7, "0123456789abcdef" * 4, 900)
    name = name_figure("kid", 5000, "hed-vgg4", config, dataset)
    assert name == "kid5000_hed-vgg4_48x64_faces@v7-0123456789ab"
    assert name_figure("kid", 5000, "hed-vgg4", config, dataset, psi=0.7, ema=False) == name + "_psi0.7_noema"


def test_fakes_have_the_labels_of_the_dataset(tmp_path: Path, store: Store, colours: Colours) -> None:
    pictures = tmp_path / "classes"
    for name, numbers in (("blue", range(9)), ("red", range(9, 12))):
        draw_pictures(pictures / name, numbers)
    run = write_run(tmp_path / "run", pictures, STYLES, stylegan2.initialise, labels=2)
    with pytest.raises(KaobakoError, match="is conditional, with 2 values per label"):
        measure_run(store, run, "", few())
    said = json.loads((run / DATA_FILE).read_text(encoding="utf-8"))
    (run / DATA_FILE).write_text(json.dumps({**said, "labels": {"source": "folders"}}), encoding="utf-8")
    report = measure_run(store, run, "", few(samples=24, neighbours=False))

    generator = load_generator(run)
    of_class = [np.stack(list(sample(generator, range(24), settings(generator, k)))) for k in range(2)]
    expected = np.where((np.arange(24) % 12 < 9)[:, None, None, None], *of_class)
    labels = np.eye(2, dtype=np.float32)[(np.arange(24) % 12 >= 9).astype(int)]
    fakes = np.stack(list(draw_fakes(generator, range(24), labels, settings(generator, 0))))
    np.testing.assert_array_equal(fakes, expected)
    reals = np.stack([np.asarray(Image.open(path)) for path in sorted(pictures.rglob("*.png"))])
    reals = np.stack([resize(one, SIDE, SIDE) for one in reals])
    value = kernel_distance(colours.extract(reals), colours.extract(expected)).value
    assert report.lines[0]["value"] == pytest.approx(value, rel=1e-9)
    assert len(report.lines[0]["labels_digest"]) == 64

    (pictures / "red" / "0009.png").rename(pictures / "blue" / "0009.png")  # the same pictures, other labels
    changed = measure_run(store, run, "", few(samples=24, neighbours=False))
    assert changed.lines[0]["labels_digest"] != report.lines[0]["labels_digest"]
    assert len(read_metrics(run)) == 8


def test_an_imported_conditional_network_is_given_all_classes(
    tmp_path: Path, pictures: Path, store: Store, colours: Colours
) -> None:
    run = write_run(tmp_path / "run", pictures, STYLES, stylegan2.initialise, labels=3)
    (run / DATA_FILE).unlink()
    with pytest.raises(KaobakoError, match="conditional, and fakes need the labels that it was trained with: the pic"):
        measure_run(store, run, str(pictures), few())
    (run / ORIGIN_FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(KaobakoError, match=r"Name what to measure against: --against NAME@V"):
        measure_run(store, run, "", few())
    report = measure_run(store, run, str(pictures), few(samples=24))
    assert [line["figure"] for line in report.lines] == list(FIGURES)
    assert all("each of its 3 classes is drawn equally often" in line["caution"] for line in report.lines)
    (missing,) = (note for note in report.notes if "no training pictures were looked for" in note)
    assert "--against" not in missing  # it was given
    generator = load_generator(run)
    labels = np.eye(3, dtype=np.float32)[np.arange(24) % 3]
    fakes = np.stack(list(draw_fakes(generator, range(24), labels, settings(generator, 0))))
    reals = np.stack([resize(np.asarray(Image.open(path)), SIDE, SIDE) for path in sorted(pictures.glob("*.png"))])
    value = kernel_distance(colours.extract(reals), colours.extract(fakes)).value
    assert report.lines[0]["value"] == pytest.approx(value, rel=1e-9)


def settings(generator: Any, number: int) -> SamplingSettings:
    return SamplingSettings(psi=1.0, noise=Noise.RANDOM, label=generator.class_label(number))


def test_features_do_not_depend_on_how_many_are_held(
    plain: Path, colours: Colours, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_generator(plain)
    asked = (generator, range(70), None, SamplingSettings(), colours, lambda *at: None, 30)
    whole, flipped = measure_fakes(*asked)
    monkeypatch.setattr(tasks.metric_features, "PART", 13)
    parts, flipped_parts = measure_fakes(*asked)
    assert len(whole) == len(parts) == 70
    assert flipped is not None and flipped_parts is not None
    assert len(flipped) == len(flipped_parts) == 30
    for name in ("features", "pixels", "pixel_digests"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
        np.testing.assert_array_equal(getattr(flipped, name), getattr(flipped_parts, name))


def test_what_cannot_be_measured(plain: Path, pictures: Path, store: Store, colours: Colours, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no dataset 'faces' in the store"):
        measure_run(store, plain, "faces@v3", few())
    with pytest.raises(StoreError, match="there is no folder"):
        measure_run(store, plain, str(tmp_path / "nowhere"), few())
    with pytest.raises(KaobakoError, match="gives 5 pictures: figures need at least 8"):
        measure_run(store, plain, str(draw_pictures(tmp_path / "five", range(5))), few())
    with pytest.raises(KaobakoError, match="too small"):
        measure_run(store, plain, str(draw_pictures(tmp_path / "small", range(9), SIDE // 2)), few())
    pictures.rename(tmp_path / "moved")
    with pytest.raises(KaobakoError, match=r"which is gone\. Name what to measure against"):
        measure_run(store, plain, "", few())
    report = measure_run(store, plain, str(tmp_path / "moved"), few())
    assert [line["figure"] for line in report.lines] == ["kid", "fid", "precision", "recall"]
    assert any("no training pictures were looked for" in note for note in report.notes)
    assert colours.seen == REALS + 48


def test_a_part_of_a_large_set(plain: Path, store: Store, colours: Colours) -> None:
    report = measure_run(store, plain, "", few(subset=20))
    assert {line["reals"] for line in report.lines} == {20}
    assert {line["subset"] for line in report.lines} == {20}
    assert any("samples were compared with 20 of 40 training pictures" in note for note in report.notes)


def train_on(pictures: Path, out: Path, store: Store, **changes: Any) -> Path:
    asked = {
        "preset": "dcgan-demo",
        "resolution": SIDE,
        "kimg": 0.128,
        "batch": 32,
        "tick_kimg": 0.064,
        "device": "cpu",
    }
    asked |= {"algorithm": ["width=4", "z_dim=8"], "workers": 1, **changes}
    job = plan_training(store, "", TrainParams.model_validate(asked), data=pictures, out=out)
    return run_training(open_training(job)).snapshot


def test_metrics_of_a_training_are_those_of_its_snapshot(
    pictures: Path,
    store: Store,
    colours: Colours,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tasks.metric_lines, "TRAINING_SAMPLES", 48)
    torch.manual_seed(5)
    with caplog.at_level(logging.INFO, logger="tasks"):
        measured = train_on(pictures, tmp_path / "run", store, metrics_kimg=0.064)
    chance = torch.get_rng_state()
    lines = read_metrics(tmp_path / "run")
    assert [(line["figure"], line["nimg"]) for line in lines] == [
        (figure, nimg) for nimg in (64, 128) for figure in ("kid", "fid", "precision", "recall")
    ]
    assert "metrics: looking at 40 real pictures" in caplog.messages
    assert "reals: 40 of 40" in caplog.messages
    assert lines[0]["weights_sha256"] is None
    assert colours.seen == REALS + 2 * 48
    after = measure_run(store, tmp_path / "run", "", few(neighbours=False))
    assert [line["value"] for line in after.lines] == [line["value"] for line in lines[4:]]
    assert [line["name"] for line in after.lines] == [line["name"] for line in lines[4:]]
    assert colours.seen == REALS + 3 * 48  # the reals are in the run's cache

    torch.manual_seed(5)
    plain = train_on(pictures, tmp_path / "without", store)
    assert torch.equal(torch.get_rng_state(), chance)
    for prefix in ("G", "G_ema", "D"):
        first, second = (load_weights(weights_path(record), prefix) for record in (measured, plain))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_missing_weights_end_a_training_before_it_starts(
    pictures: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(MissingWeightError, match="kaobako weights fetch hed-vgg4"):
        train_on(pictures, tmp_path / "run", store, metrics_kimg=0.064)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_real_extractor(plain: Path, store: Store) -> None:
    if weight_status("hed-vgg4").state != "ok":
        pytest.skip("run: kaobako weights fetch hed-vgg4")
    report = measure_run(store, plain, "", few(samples=16, neighbours=False))
    kid = report.lines[0]
    assert kid["extractor"] == "hed-vgg4"
    assert kid["extractor_sha256"] == load_extractor("hed-vgg4").digest
    assert kid["value"] > 10 * abs(kid["baseline"])  # an untrained network against real pictures
    assert kid["value"] > 10 * kid["error"]
