"""What a training is asked for, planned before any work: settings, data, labels, resumed runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from datasets.errors import SourceError, StoreError
from datasets.labels import LabelError
from datasets.pictures import encode_png
from datasets.store import Store
from models.training.config import StyleGAN2Config, TrainingConfig
from models.training.run import RunError
from models.training.snapshot import load_weights, read_record, weights_path
from models.training.trainer import TrainingResult
from tasks.train import TrainParams, open_training, plan_training, run_training
from tasks.train_data import VersionData
from tasks.train_params import TrainingError, read_algorithm

TINY = {
    "preset": "dcgan-demo", "resolution": 16, "batch": 4, "kimg": 0.008, "tick_kimg": 0.004, "device": "cpu",
    "algorithm": {"width": 2, "z_dim": 4}, "workers": 1,
}  # fmt: skip
TINY_STYLE = {
    **TINY, "preset": "stylegan2-demo", "algorithm": {"z_dim": 4, "w_dim": 4, "channel_max": 4, "mapping_layers": 1},
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures of 32 px in two sub-folders."""
    for k in range(8):
        path = tmp_path / "pictures" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        path.write_bytes(encode_png(noise))
    return tmp_path / "pictures"


@pytest.fixture
def train_on(store: Store, tmp_path: Path) -> Callable[..., TrainingResult]:
    """train_on(folder, resume=False, ..., **settings) -> the result of a tiny training in tmp_path/run."""

    def run(
        data: Path | None, resume: bool = False, allow: bool = False, out: str = "run", **settings: Any
    ) -> TrainingResult:
        base = {} if resume else TINY
        job = plan_training(
            store,
            "",
            TrainParams.model_validate({**base, **settings}),
            resume=resume,
            data=data,
            out=tmp_path / out,
            allow_other_dataset=allow,
        )
        return run_training(open_training(job))

    return run


# ---------------------------------------------------------------- settings


def test_settings_reach_the_configuration() -> None:
    asked = {"resolution": 64, "batch": 8, "r1_gamma": 3, "augment": "diffaugment", "aspect": (3, 4), "mirror": False}
    asked |= {"precision": "float32", "algorithm": {"path_weight": 0, "betas": [0.1, 0.9]}, "snapshot_ticks": 7}
    config = TrainParams.model_validate({"preset": "stylegan2-ada", **asked}).resolve()
    algorithm = config.algorithm
    assert isinstance(algorithm, StyleGAN2Config)
    assert (config.width, config.height, config.batch, config.mirror) == (64, 48, 8, False)
    assert (config.precision.value, config.snapshot_ticks) == ("float32", 7)
    assert (algorithm.r1_gamma, algorithm.augment, algorithm.path_weight) == (3, "diffaugment", 0)
    assert algorithm.betas == (0.1, 0.9)


def test_algorithm_settings_are_tables_or_lines() -> None:
    table = TrainParams.model_validate({"algorithm": {"path_weight": 0, "augment_pipe": "bg", "betas": [0, 0.9]}})
    lines = ("path_weight=0", 'augment_pipe="bg"', "betas=[0, 0.9]")
    assert table.algorithm == lines
    assert read_algorithm(["augment_pipe=bg", "path_weight = 0"]) == {"augment_pipe": "bg", "path_weight": 0}
    assert TrainParams.model_validate(table.model_dump(mode="json")) == table
    for wrong in ("path_weight", "=3"):
        with pytest.raises(ValidationError, match="NAME=VALUE"):
            TrainParams.model_validate({"algorithm": [wrong]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "dcgan-demo", "r1_gamma": 3}, "r1_gamma: dcgan has no such setting, but stylegan2 has"),
        ({"algorithm": {"path_wieght": 3}}, "path_wieght: stylegan2 has no .* did you mean path_weight"),
        ({"algorithm": {"path_weight": -1}}, "path_weight: Input should be greater"),
        ({"resolution": 60}, "resolution must be 4 .*got 60"),
        ({"preset": "dcgan-demo", "aspect": (3, 4)}, r"aspect must be \(4, 4\).*StyleGAN2 can"),
        ({"tick_kimg": 0.001}, "tick_kimg must be at least one batch"),
        ({"micro_batch": 3, "batch": 8}, "micro_batch must divide the batch"),
        ({"augment": "fixed", "algorithm": {"augment_p": 2}}, "augment_p: .*less than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_said_plainly(settings: dict[str, Any], message: str) -> None:
    params = TrainParams.model_validate({"preset": "stylegan2-ada", "resolution": 64, **settings})
    with pytest.raises(TrainingError, match=f"(?s){message}") as refused:
        params.resolve()
    assert "pydantic" not in str(refused.value)


def test_a_resumed_run_keeps_what_nobody_asked_to_change() -> None:
    run = TrainParams.model_validate(TINY_STYLE).resolve()
    later = TrainParams.model_validate({"kimg": 2, "algorithm": {"path_weight": 1}}).resolve_for(run)
    assert later.kimg == 2
    assert later.model_dump(exclude={"kimg", "algorithm"}) == run.model_dump(exclude={"kimg", "algorithm"})
    changed = {"path_weight": 1.0}
    assert later.algorithm.model_dump() == run.algorithm.model_dump() | changed


def test_a_preset_of_another_algorithm_is_refused_where_a_run_goes_on() -> None:
    run = TrainParams.model_validate(TINY).resolve()
    style = TrainParams.model_validate(TINY_STYLE).resolve()
    with pytest.raises(
        TrainingError, match=r"this run is a dcgan of 16 px, stylegan2-demo is a stylegan2.*leave it out"
    ):
        TrainParams.model_validate({"preset": "stylegan2-demo"}).resolve_for(run)
    assert TrainParams.model_validate({"preset": "stylegan2-ada", "kimg": 1}).resolve_for(style).kimg == 1
    form = TrainParams.model_validate({"preset": "dcgan-demo", "kimg": 1})  # a form always sends its first value
    assert form.resolve_for(style).algorithm == style.algorithm


@pytest.mark.parametrize(
    ("named", "refused"),
    [
        ({"preset": "dcgan-demo"}, True),  # of the other algorithm, though a form may send it
        ({"preset": "stylegan2-demo"}, True),  # 32 px: the run would stay at 16
        ({"preset": "stylegan2-demo", "resolution": 16}, False),
    ],
)
def test_a_preset_that_was_named_must_be_of_the_run(named: dict[str, Any], refused: bool) -> None:
    run = TrainParams.model_validate(TINY_STYLE).resolve()
    params = TrainParams.model_validate(named)
    if not refused:
        params.check_preset(run)
        return
    with pytest.raises(TrainingError, match=r"this run is a stylegan2 of 16 px.*--preset is for new runs"):
        params.check_preset(run)


# ---------------------------------------------------------------- folders


def test_a_folder_is_trained_on_and_named(
    folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    result = train_on(folder)
    record = read_record(result.snapshot)
    assert (record.dataset.name, record.dataset.version, record.dataset.count) == ("pictures", 0, 8)
    said = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (said["kind"], said["path"], said["count"]) == ("folder", str(folder), 8)
    assert said["digest"] == record.dataset.digest
    assert not (tmp_path / "store").exists()


def test_a_resumed_run_finds_its_folder_and_checks_it(
    folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    digest = read_record(train_on(folder).snapshot).dataset.digest
    assert train_on(None, resume=True, kimg=0.012).nimg == 12
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match=r"which is gone.*--data"):
        train_on(None, resume=True, kimg=0.016)
    assert train_on(moved, resume=True, kimg=0.016).nimg == 16

    (moved / "a" / "0.png").unlink()
    with pytest.raises(RunError, match=r"dataset: moved .*--allow-other-dataset"):
        train_on(moved, resume=True, kimg=0.020)
    other = train_on(moved, resume=True, allow=True, kimg=0.020)
    assert (other.nimg, read_record(other.snapshot).dataset.count) == (20, 7)
    said = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (said["count"], said["path"]) == (7, str(moved))
    assert [(one["count"], one["digest"]) for one in said["before"]] == [(8, digest)]
    assert train_on(None, resume=True, kimg=0.024).nimg == 24


def test_a_refused_resume_leaves_the_notes_alone(
    folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    train_on(folder)
    before = (tmp_path / "run" / "data.json").read_bytes()
    (folder / "a" / "0.png").unlink()
    with pytest.raises(RunError):
        train_on(None, resume=True, kimg=0.012)
    assert (tmp_path / "run" / "data.json").read_bytes() == before


def test_two_places_for_a_run_or_none_are_refused(store: Store, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not by both"):
        plan_training(store, "", TrainParams(), "run", data=folder, out=tmp_path / "run")
    with pytest.raises(StoreError, match="--run ID or --out FOLDER"):
        plan_training(store, "", TrainParams(), resume=True)
    with pytest.raises(TrainingError, match="no run to go on with: start it without --resume"):
        plan_training(store, "", TrainParams(), resume=True, out=tmp_path / "nothing")
    with pytest.raises(SourceError, match="no folder"):
        plan_training(store, "", TrainParams(), data=tmp_path / "nothing")
    with pytest.raises(TrainingError, match="lies among the pictures"):
        plan_training(store, "", TrainParams.model_validate(TINY), data=folder, out=folder / "a" / "run")
    job = plan_training(store, "", TrainParams.model_validate(TINY), data=folder)
    assert job.folder == store.runs / "pictures-dcgan-demo-000"


def test_processes_need_a_named_run_and_an_even_batch(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(TrainingError, match="one run"):
        plan_training(store, "", TrainParams.model_validate(TINY), data=folder)
    with pytest.raises(TrainingError, match=r"batch of 4 .* 3 processes"):
        plan_training(store, "", TrainParams.model_validate(TINY), data=folder, out=tmp_path / "run")


# ---------------------------------------------------------------- labels and transfer


def test_a_conditional_training_resumes_with_its_labels(
    folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    result = train_on(folder, **TINY_STYLE, labels="folders")
    assert read_record(result.snapshot).config.labels == 2
    said = json.loads((tmp_path / "run" / "data.json").read_text())["labels"]
    assert (said["source"], said["names"]) == ("folders", ["a", "b"])
    assert train_on(None, resume=True, kimg=0.012).nimg == 12


def test_changed_labels_are_another_dataset(
    folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    names = [f"{'ab'[k % 2]}/{k}.png" for k in range(8)]
    labels = folder / "dataset.json"
    labels.write_text(json.dumps({"labels": [[name, k % 2] for k, name in enumerate(names)]}))
    train_on(folder, **TINY_STYLE, labels="file")
    labels.write_text(json.dumps({"labels": [[name, 1 - k % 2] for k, name in enumerate(names)]}))
    with pytest.raises(TrainingError, match=r"labels are not those .*--allow-other-dataset"):
        train_on(None, resume=True, kimg=0.012)
    assert train_on(None, resume=True, allow=True, kimg=0.012).nimg == 12
    labels.write_text(json.dumps({"labels": [[name, k % 3] for k, name in enumerate(names)]}))
    with pytest.raises(TrainingError, match="has 2 values per label, the data gives 3 now"):
        train_on(None, resume=True, allow=True, kimg=0.016)


def test_labels_that_do_not_fit_are_refused_before_any_work(store: Store, folder: Path, tmp_path: Path) -> None:
    def plan(**settings: Any) -> None:
        plan_training(store, "", TrainParams.model_validate({**TINY, **settings}), data=folder, out=tmp_path / "run")

    with pytest.raises(TrainingError, match=r"(?s)dcgan.*labels must be 0"):
        plan(labels="folders")
    with pytest.raises(LabelError, match="labels=rating is for versions"):
        plan(labels="rating")
    with pytest.raises(LabelError, match=r"there is no .*dataset\.json"):
        plan(labels="file")
    for path in (folder / "b").iterdir():
        path.unlink()
    with pytest.raises(LabelError, match="nothing to tell apart"):
        plan(**TINY_STYLE, labels="folders")
    assert not (tmp_path / "run").exists()


def test_classes_are_one_hot_and_vectors_stay(store: Store, folder: Path) -> None:
    params = TrainParams.model_validate({**TINY_STYLE, "labels": "folders"})
    job = plan_training(store, "", params, data=folder)
    assert job.labels is not None
    assert job.labels.encode(np.array([1, 0, 1])).tolist() == [[0, 1], [1, 0], [0, 1]]
    (folder / "dataset.json").write_text(
        json.dumps({"labels": [[name, [k, -1.5, 0]] for k, name in enumerate(job.data.folder.names)]})
    )
    vectors = plan_training(store, "", params.model_copy(update={"labels": "file"}), data=folder)
    assert vectors.config.labels == 3
    assert vectors.labels is not None
    assert vectors.labels.encode(vectors.labels.rows[2:3]).tolist() == [[2, -1.5, 0]]


class Listed:
    """Stands for a version: what labels are made of."""

    reference = "faces@v1"

    def __init__(self, **columns: list[Any]) -> None:
        types = {"rating": pa.string(), "tags": pa.list_(pa.string())}
        self._table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})

    def manifest(self) -> pa.Table:
        return self._table


def test_labels_of_a_version(store: Store) -> None:
    tags = [["smile"], ["hat", "smile"], [], ["hat"]]
    version = VersionData(store, Listed(rating=["safe", "questionable", "safe", None], tags=tags))  # type: ignore[arg-type]
    assert version.find_labels("none", ()) is None
    rating = version.find_labels("rating", ())
    assert rating is not None
    assert (rating.names, rating.rows.tolist()) == (("questionable", "safe"), [1, 0, 1, -1])
    many = version.find_labels("tags", ("hat", "smile"))
    assert many is not None
    assert (many.names, many.rows.tolist()) == (("hat", "smile"), [[0, 1], [1, 1], [0, 0], [1, 0]])
    one = version.find_labels("class", ("hat", "smile"))
    assert one is not None
    assert one.rows.tolist() == [1, -2, -1, 0]  # the reader names those of no class and of several
    digests = [labels.describe()["digest"] for labels in (rating, many, one)]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("source", "tags", "message"),
    [
        ("tags", (), "needs the tags: --set"),
        ("class", ("hat", "hut"), "no picture of faces@v1 has the tag hut: see `kaobako tags`"),
        ("class", ("hat",), "nothing to tell apart"),
        ("rating", (), "all of faces@v1 have one rating"),
        ("folders", (), "labels=folders is for folders"),
    ],
)
def test_labels_that_a_version_cannot_give(store: Store, source: Any, tags: tuple[str, ...], message: str) -> None:
    version = VersionData(store, Listed(rating=["safe"] * 2, tags=[["hat"], []]))  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=message):
        version.find_labels(source, tags)


def test_a_training_begins_with_another_ones_weights(
    store: Store, folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    first = train_on(folder, **TINY_STYLE)
    second = train_on(folder, out="second", **TINY_STYLE, transfer=str(tmp_path / "run"), seed=5)
    record = read_record(second.snapshot)
    assert record.config.transfer == read_record(first.snapshot).weights_sha256
    fresh = train_on(folder, out="third", **TINY_STYLE, seed=5)

    def away(result: TrainingResult) -> float:
        theirs = load_weights(weights_path(first.snapshot), "G")
        ours = load_weights(weights_path(result.snapshot), "G")
        return sum(
            float((ours[name] - theirs[name]).abs().sum()) for name in theirs if theirs[name].dtype.is_floating_point
        )

    assert away(second) < 0.2 * away(fresh)
    with pytest.raises(TrainingError, match="no run or snapshot nowhere"):
        train_on(folder, out="fourth", transfer="nowhere")
    with pytest.raises(TrainingError, match="--transfer is for new runs"):
        train_on(None, resume=True, transfer=str(tmp_path / "second"))


def test_mirrored_batches_of_a_run_are_those_of_its_reader(
    store: Store, folder: Path, tmp_path: Path, train_on: Callable[..., TrainingResult]
) -> None:
    """The same settings give the same weights; another order or no mirroring gives others."""

    def weights(out: str, **settings: Any) -> dict[str, torch.Tensor]:
        return load_weights(weights_path(train_on(folder, out=out, **settings).snapshot), "D")

    def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a)

    first = weights("one")
    assert same(first, weights("two", workers=3, prefetch=0, cache_gb=0))
    assert not same(first, weights("three", mirror=False))


def test_a_plan_is_a_complete_configuration(store: Store, folder: Path) -> None:
    job = plan_training(store, "", TrainParams.model_validate(TINY), data=folder)
    assert TrainingConfig.model_validate_json(job.config.model_dump_json()) == job.config
    assert (job.reference, job.from_folder, job.data.count) == (str(folder), True, 8)
