"""The whole check for memorisation, on generated faces.

A generator that repeats its pictures is caught, whatever copies the training set holds, and one that makes new faces is
not accused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import tasks.neighbours
from datasets.loader import VersionReader
from datasets.picture_folder import list_folder
from datasets.store import Store
from models.augment.apply import apply_augmentation
from models.gan.pictures import resize
from models.sampling.settings import SamplingSettings
from models.training.config import DCGANConfig, TrainingConfig
from tasks.metric_features import look_at
from tasks.metric_reference import MetricsError, Reference, open_reference
from tasks.neighbours import MemorisationReport, Samples, check_memorisation, find_yardstick
from tasks.progress import ignore_progress
from tasks.train_data import FolderData

SIDE = 64
TRAINING, SAMPLES = 320, 200
CONFIG = TrainingConfig(algorithm=DCGANConfig(z_dim=8, width=4), resolution=SIDE)


class Blocks:
    """An extractor of sorts: colours of 4 x 4 blocks, which a mirror image does not share."""

    name, digest, features = "blocks", "b" * 64, 48

    def extract(self, pictures: np.ndarray) -> np.ndarray:
        small = [cv2.resize(picture, (4, 4), interpolation=cv2.INTER_AREA).reshape(-1) for picture in pictures]
        return np.asarray(small, np.float32)


def draw_face(number: int) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3): hair, skin, eyes and a ground of colours of its own, always the same for a number."""
    rng = np.random.default_rng(number)
    ground = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    face = cv2.resize(ground, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_LINEAR)
    centre = (int(rng.integers(50, 78)), int(rng.integers(60, 78)))
    axes = (int(rng.integers(24, 36)), int(rng.integers(30, 42)))
    turn = float(rng.uniform(-15, 15))
    colours = rng.integers(0, 256, (3, 3)).tolist()
    cv2.ellipse(face, centre, (axes[0] + 18, axes[1] + 18), turn, 0, 360, colours[0], -1)
    cv2.ellipse(face, (centre[0], centre[1] + 8), axes, turn, 0, 360, colours[1], -1)
    for side in (-1, 1):
        cv2.circle(face, (centre[0] + side * axes[0] // 2, centre[1]), int(rng.integers(5, 11)), colours[2], -1)
    return cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def write_faces(folder: Path, faces: list[np.ndarray], suffix: str = "png") -> Path:
    folder.mkdir(exist_ok=True)
    for face in faces:
        name = f"{len(list(folder.iterdir())):04d}.{suffix}"
        Image.fromarray(face).save(folder / name, **({"quality": 95} if suffix == "jpg" else {}))
    return folder


def open_folder(folder: Path, home: Path) -> Reference:
    return open_reference(FolderData(list_folder(folder)), CONFIG, 50_000, home)


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """What is trained on."""
    return [draw_face(number) for number in range(TRAINING)]


@pytest.fixture(scope="module")
def fresh() -> list[np.ndarray]:
    """What nobody has seen."""
    return [draw_face(number) for number in range(5000, 5000 + SAMPLES)]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MemorisationReport]:
    """check(training folder, fakes, held out folder): what is found, of a training that mirrored."""

    def check(training: Path, fakes: list[np.ndarray], held_out: Path | None = None) -> MemorisationReport:
        monkeypatch.setattr(tasks.neighbours, "draw_fakes", lambda generator, seeds, *rest: [fakes[k] for k in seeds])
        trained_on = open_folder(training, tmp_path)
        other = None if held_out is None else open_folder(held_out, tmp_path)
        yardstick = find_yardstick(trained_on, other, True, Blocks(), ignore_progress)
        flipped = look_at([np.ascontiguousarray(face[:, ::-1]) for face in fakes], Blocks())
        seeds = range(len(fakes))
        samples = Samples(None, SamplingSettings(), seeds, None, look_at(fakes, Blocks()), flipped)  # type: ignore[arg-type]
        return check_memorisation(samples, trained_on, yardstick, tmp_path / "metrics", "0", ignore_progress)

    return check


def repeat(faces: list[np.ndarray]) -> list[np.ndarray]:
    """What a generator makes that knows nothing but its training pictures: those, some mirrored, with noise."""
    rng = np.random.default_rng(7)
    made = []
    for face in faces[:SAMPLES]:
        noisy = (face + rng.integers(-12, 13, face.shape)).clip(0, 255).astype(np.uint8)
        made.append(np.ascontiguousarray(noisy[:, ::-1]) if len(made) % 2 else noisy)
    return made


COPIES: dict[str, Callable[[Path, list[np.ndarray]], Path]] = {
    "none": lambda folder, faces: folder,
    "mirror images": lambda folder, faces: write_faces(folder, [face[:, ::-1] for face in faces]),
    "20 JPEG copies": lambda folder, faces: write_faces(folder, faces[:20], "jpg"),
    "exact copies": lambda folder, faces: write_faces(folder, faces[:100]),
}


@pytest.mark.parametrize("copies", COPIES)
def test_copies_in_the_training_set_hide_nothing(
    copies: str,
    faces: list[np.ndarray],
    fresh: list[np.ndarray],
    check: Callable[..., MemorisationReport],
    tmp_path: Path,
) -> None:
    training = COPIES[copies](write_faces(tmp_path / "training", faces), faces)
    report = check(training, repeat(faces))
    for judged, verdict in zip((report.by_features, report.by_pixels), report.verdicts(), strict=True):
        assert judged.share > 0.95
        assert judged.reals == TRAINING  # copies count once
        assert "repeats training pictures" in verdict
    said = {"none": 0, "mirror images": 320, "20 JPEG copies": 20, "exact copies": 100}[copies]
    expected = (f"{said} of 320 training pictures have copies, which they were not compared with",) if said else ()
    assert report.notes == expected

    report = check(training, fresh)
    assert all("no sign of memorisation" in verdict for verdict in report.verdicts())


def test_a_few_repeated_pictures_are_noticed(
    faces: list[np.ndarray], fresh: list[np.ndarray], check: Callable[..., MemorisationReport], tmp_path: Path
) -> None:
    report = check(write_faces(tmp_path / "training", faces), [*repeat(faces)[:12], *fresh[12:]])
    for verdict in report.verdicts():
        assert "some training pictures may have been learned" in verdict


def test_held_out_copies_are_left_out(
    faces: list[np.ndarray], check: Callable[..., MemorisationReport], tmp_path: Path
) -> None:
    training = write_faces(tmp_path / "training", faces)
    held_out = write_faces(tmp_path / "held", [draw_face(number) for number in range(1000, 1320)])
    write_faces(held_out, faces[:5])
    write_faces(held_out, [face[:, ::-1] for face in faces[5:20]])
    write_faces(held_out, [draw_face(1000)], "jpg")
    report = check(training, repeat(faces), held_out)
    assert report.reals_said == "320 held-out pictures of held"
    assert report.notes == (
        "5 of 341 held-out pictures were trained on, and left out",
        "15 of 341 held-out pictures are copies of training pictures, and left out",
        "1 of 341 held-out pictures are copies of others, and left out",
    )
    assert all("repeats training pictures" in verdict for verdict in report.verdicts())
    with pytest.raises(MetricsError, match="all pictures of known were trained on"):
        check(training, repeat(faces), write_faces(tmp_path / "known", [face[:, ::-1] for face in faces[:10]]))


def test_a_set_of_one_picture_says_what_to_do(
    faces: list[np.ndarray], check: Callable[..., MemorisationReport], tmp_path: Path
) -> None:
    with pytest.raises(MetricsError, match=r"copies of one.*--held-out, or leave neighbours out by --no-neighbours"):
        check(write_faces(tmp_path / "training", faces[:1] * 10), repeat(faces))


def test_what_was_made_of_a_crop_has_its_origin(
    store: Store, build: Callable[..., Any], tmp_path: Path, draw: Any
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        Image.fromarray(draw(number)).save(source / f"{number}.png")
    result = build(**{"augment.mirror": True})
    rows = result.version.manifest().to_pylist()
    assert sum(row["parent_crop"] is not None for row in rows) == 3
    side = rows[0]["width"]
    reader = VersionReader(store, result.version, side, resize, derive=apply_augmentation)
    origins = [reader.origin(k) for k in range(reader.count)]
    assert origins == [row["parent_crop"] or row["crop_id"] for row in rows]
    assert len(set(origins)) == 3
