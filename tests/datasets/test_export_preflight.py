"""Preflight: every mismatch is listed with its crop, all at once, and nothing is written."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets.errors import StoreError
from datasets.exports.format import Format
from datasets.exports.plan import ExportError, ExportPlan, ExportSettings, make_labels, plan_export
from datasets.exports.preflight import Kind, PreflightError
from datasets.exports.run import check_export, export_version
from datasets.labels import LabelError
from datasets.schema import LEDGER, MANIFEST
from datasets.store import Store
from datasets.version import Version, publish_version, read_version, store_of, verify_version

Encode = Callable[..., bytes]
Publish = Callable[..., Version]


class Row(NamedTuple):
    """A picture to publish: what the manifest says of it may be a lie."""

    crop_id: str
    data: bytes
    width: int = 16
    height: int = 16
    tags: tuple[str, ...] = ()
    suffix: str = ".png"


@pytest.fixture
def publish_rows(store: Store) -> Callable[[list[Row]], Version]:
    def publish(rows: list[Row]) -> Version:
        manifest = [
            {
                "crop_id": row.crop_id,
                "post_id": "p",
                "blob": store.blobs.put(row.data, row.suffix),
                "pixel_digest": f"{k:064d}",
                "width": row.width,
                "height": row.height,
                "tags": list(row.tags),
            }
            for k, row in enumerate(rows)
        ]
        lineage: dict[str, Any] = {"recipe": {}, "stage_versions": {}, "weights": {}, "counts": {}}
        table = pa.Table.from_pylist(manifest, schema=MANIFEST)
        return publish_version(store, "faces", table, LEDGER.empty_table(), lineage, lambda *args: None)

    return publish


@pytest.fixture
def noise(draw_noise: Callable[..., np.ndarray], encode: Encode) -> Callable[..., bytes]:
    """noise(seed, width, height, mode, format, **save options) -> a file's bytes."""

    def make(
        seed: int, width: int = 16, height: int = 16, mode: str = "RGB", kind: str = "PNG", **options: Any
    ) -> bytes:
        image = Image.fromarray(draw_noise(seed, max(width, height))[:height, :width]).convert(mode)
        return encode(image, kind, **options)

    return make


def listed(plan: ExportPlan) -> set[tuple[str | None, str]]:
    return {(problem.crop_id, problem.kind.value) for problem in check_export(plan).problems}


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "store")


@pytest.mark.parametrize(("file_format", "out"), [(Format.STYLEGAN, "faces.zip"), (Format.TFRECORD, "faces")])
def test_every_planted_mismatch_is_listed_and_nothing_written(
    publish_rows: Callable[[list[Row]], Version],
    noise: Callable[..., bytes],
    store: Store,
    tmp_path: Path,
    file_format: Format,
    out: str,
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    version = publish_rows(
        [
            *(Row(f"good{k}#0", noise(k), tags=("a",)) for k in range(4)),
            Row("wide#0", noise(10, 16, 8), 16, 8, ("a",)),
            Row("odd#0", noise(11, 12, 12), 12, 12, ("a",)),
            Row("large#0", noise(12, 32, 32), 32, 32, ("a",)),
            Row("liar#0", noise(13), 64, 64, ("a",)),
            Row("alpha#0", noise(14, mode="RGBA"), tags=("a",)),
            Row("grey#0", noise(15, mode="L"), tags=("a",)),
            Row("palette#0", noise(16, mode="P"), tags=("a",)),
            Row("cmyk#0", noise(17, mode="CMYK", kind="JPEG"), tags=("a",), suffix=".jpg"),
            Row("turned#0", noise(18, kind="JPEG", exif=turned), tags=("a",), suffix=".jpg"),
            Row("torn#0", b"\x89PNG\r\n\x1a\nno header", tags=("a",)),
            Row("gone#0", noise(19), tags=("a",)),
            Row("twin#0", noise(20), tags=("a",)),
            Row("twin#0", noise(21), tags=("a",)),
            Row("plain#0", noise(22)),
            Row("both#0", noise(23), tags=("a", "b")),
        ]
    )
    plan = plan_export(store, version, file_format, tmp_path / out, classes=("a", "b", "typo"))
    store.blobs.path(plan.blobs[plan.crop_ids.index("gone#0")]).unlink()
    assert listed(plan) == {
        ("wide#0", "not_square"),
        ("wide#0", "other_size"),
        ("odd#0", "not_power_of_two"),
        ("odd#0", "other_size"),
        ("large#0", "other_size"),
        ("liar#0", "unlike_manifest"),
        ("alpha#0", "wrong_mode"),
        ("grey#0", "wrong_mode"),
        ("palette#0", "wrong_mode"),
        ("cmyk#0", "wrong_mode"),
        ("turned#0", "rotated"),
        ("torn#0", "unreadable_blob"),
        ("gone#0", "missing_blob"),
        ("twin#0", "duplicate_name"),
        ("plain#0", "no_label"),
        ("both#0", "several_labels"),
        (None, "unused_label"),
        (None, "unused_label"),
    }
    details = [problem.detail for problem in check_export(plan).problems if problem.kind is Kind.UNUSED_LABEL]
    assert [detail.split("'")[1] for detail in details] == ["b", "typo"]
    with pytest.raises(PreflightError, match="nothing was written") as caught:
        export_version(plan)
    assert len(caught.value.problems) == 19  # the twins are two, so are the unused labels
    assert leftovers(tmp_path) == []


def test_formats_that_are_no_trainers_take_any_shape(
    publish_rows: Callable[[list[Row]], Version], noise: Callable[..., bytes], store: Store, tmp_path: Path
) -> None:
    rows = [Row("a#0", noise(1, 16, 8), 16, 8), Row("b#0", noise(2, 5, 5, kind="JPEG"), 5, 5, suffix=".jpg")]
    version = publish_rows([*rows, Row("c#0", noise(3, mode="L"))])
    for file_format in (Format.WEBDATASET, Format.PARQUET, Format.IMAGEFOLDER, Format.FOLDER):
        assert listed(plan_export(store, version, file_format, tmp_path / "out")) == set()
    out = tmp_path / "plain"
    export_version(plan_export(store, version, Format.FOLDER, out))
    assert {path.name for path in out.glob("*_0.*")} == {"a_0.png", "b_0.jpg", "c_0.png"}


def test_all_grey_is_as_good_as_all_colour(
    publish_rows: Callable[[list[Row]], Version], noise: Callable[..., bytes], store: Store, tmp_path: Path
) -> None:
    version = publish_rows([Row(f"{k}#0", noise(k, mode="L")) for k in range(3)])
    plan = plan_export(store, version, Format.STYLEGAN, tmp_path / "grey.zip")
    assert export_version(plan).pictures == 3


def test_an_empty_version(publish: Publish, store: Store, tmp_path: Path) -> None:
    for file_format, out in ((Format.STYLEGAN, "a.zip"), (Format.PARQUET, "b"), (Format.TFRECORD, "c")):
        plan = plan_export(store, publish(count=0), file_format, tmp_path / out)
        assert listed(plan) == {(None, "empty")}


def test_a_taken_destination(publish: Publish, store: Store, tmp_path: Path) -> None:
    version = publish()
    taken = tmp_path / "taken"
    taken.mkdir()
    plan = plan_export(store, version, Format.FOLDER, taken)
    assert listed(plan) == set()  # an empty folder is no obstacle
    (taken / "mine.txt").write_text("mine")
    assert listed(plan) == {(None, "destination")}
    with pytest.raises(PreflightError, match="holds something else"):
        export_version(plan)
    assert (taken / "mine.txt").read_text() == "mine"

    (tmp_path / "old.zip").write_bytes(b"somebody's")
    plan = plan_export(store, version, Format.STYLEGAN, tmp_path / "old.zip")
    assert listed(plan) == {(None, "destination")}
    assert listed(replace(plan, out=tmp_path / "new")) == {(None, "destination")}  # not .zip
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert listed(plan_export(store, version, Format.FOLDER, tmp_path / "link")) == {(None, "destination")}
    below_a_file = plan_export(store, version, Format.FOLDER, tmp_path / "old.zip" / "out")
    assert listed(below_a_file) == {(None, "destination")}


def test_another_version_does_not_take_the_place_of_one(
    publish: Publish, store: Store, tmp_path: Path, draw_noise: Callable[..., np.ndarray]
) -> None:
    first = publish(count=2)
    out = tmp_path / "out"
    export_version(plan_export(store, first, Format.FOLDER, out))
    again = export_version(plan_export(store, first, Format.FOLDER, out))
    assert again.already_there
    assert listed(plan_export(store, publish(count=3), Format.FOLDER, out)) == {(None, "destination")}


@pytest.mark.parametrize("file_format", list(Format))
def test_a_finished_export_that_lost_files_is_not_called_whole(
    publish: Publish, store: Store, tmp_path: Path, file_format: Format
) -> None:
    out = tmp_path / ("out.zip" if file_format is Format.STYLEGAN else "out")
    plan = plan_export(store, publish(count=5), file_format, out, settings=ExportSettings(shard_pictures=2, link=False))
    export_version(plan)
    assert check_export(plan).finished
    if file_format is Format.STYLEGAN:
        out.write_bytes(data := without_the_middle(out.read_bytes()))
        assert out.read_bytes() == data
    else:
        files = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.endswith("kaobako.json"))
        files[0].unlink()  # a picture, a shard, records
        files[-1].write_bytes(files[-1].read_bytes()[:-1])
    checked = check_export(plan)
    assert not checked.finished
    assert [(problem.crop_id, problem.kind) for problem in checked.problems] == [(None, Kind.DESTINATION)]
    how_many = "1 file is" if file_format is Format.STYLEGAN else "2 files are"
    assert f"{out} is this export, but {how_many} missing or of another size" in checked.problems[0].detail
    with pytest.raises(PreflightError, match="move it away"):
        export_version(plan)


def without_the_middle(data: bytes) -> bytes:
    """A zip that a failed copy left without some of its first picture: its directory is still there."""
    return data[:200] + data[300:]


def test_a_zip_that_lost_a_member_is_not_called_whole(publish: Publish, store: Store, tmp_path: Path) -> None:
    plan = plan_export(store, publish(count=3), Format.STYLEGAN, tmp_path / "out.zip")
    export_version(plan)
    with zipfile.ZipFile(plan.out) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != "00000/img00000001.png"}
    with zipfile.ZipFile(plan.out, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    assert "1 file is missing or of another size, 00000/img00000001.png first" in check_export(plan).problems[0].detail


def test_a_changed_manifest_is_not_exported(publish: Publish, store: Store, tmp_path: Path) -> None:
    version = publish()
    pq.write_table(version.manifest().slice(1), version.folder / "manifest.parquet")
    with pytest.raises(StoreError, match=r"not the one that was published .*`kaobako versions verify faces@v1`"):
        plan_export(store, version, Format.FOLDER, tmp_path / "out")
    (version.folder / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="kaobako versions verify faces@v1"):
        plan_export(store, version, Format.FOLDER, tmp_path / "out")


def test_a_store_whose_datasets_are_a_link(publish: Publish, store: Store, tmp_path: Path) -> None:
    publish()
    (tmp_path / "large").mkdir()
    elsewhere = (store.root / "datasets").rename(tmp_path / "large" / "datasets")
    (store.root / "datasets").symlink_to(elsewhere)
    for reference in ("faces", str(store.version_folder("faces", 1))):
        version = read_version(store, reference)
        home = store_of(version.folder)
        assert home.root == store.root
        assert listed(plan_export(home, version, Format.FOLDER, tmp_path / "out")) == set()
        assert verify_version(home, version) == []
    (tmp_path / "newest").mkdir()
    (tmp_path / "newest" / "v0001").symlink_to(store.version_folder("faces", 1))  # a link that says nothing is followed
    assert store_of(tmp_path / "newest" / "v0001").root == elsewhere.parent


def test_a_blob_that_was_cut_short_is_listed(publish: Publish, store: Store, tmp_path: Path) -> None:
    plan = plan_export(store, publish(count=6), Format.PARQUET, tmp_path / "out")
    for row in (1, 4):
        path = store.blobs.path(plan.blobs[row])
        os.truncate(path, path.stat().st_size - 9)
    assert listed(plan) == {("p1#0", "unreadable_blob"), ("p4#0", "unreadable_blob")}
    assert all("is cut short" in problem.detail for problem in check_export(plan).problems)


def test_verify_lists_every_damaged_blob(publish: Publish, store: Store, tmp_path: Path) -> None:
    plan = plan_export(store, publish(count=6), Format.PARQUET, tmp_path / "out")
    for row in (1, 4):
        path = store.blobs.path(plan.blobs[row])
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
    assert check_export(plan).problems == []
    found = check_export(plan, verify=True).problems
    assert [(problem.crop_id, problem.kind.value) for problem in found] == [
        ("p1#0", "damaged_blob"),
        ("p4#0", "damaged_blob"),
    ]
    with pytest.raises(ExportError, match=r"p1#0.*--dry-run --verify lists all damaged ones"):
        export_version(plan)


def test_bytes_behind_a_whole_picture_are_no_damage(
    publish_rows: Callable[[list[Row]], Version], noise: Callable[..., bytes], store: Store, tmp_path: Path
) -> None:
    rows = [Row("a#0", noise(1) + b"more"), Row("b#0", noise(2, kind="JPEG") + b"\0", suffix=".jpg")]
    version = publish_rows([*rows, Row("c#0", noise(3, kind="JPEG"), suffix=".jpg")])
    assert listed(plan_export(store, version, Format.FOLDER, tmp_path / "out")) == set()


def test_pictures_without_the_columns_value_are_listed(publish: Publish, store: Store, tmp_path: Path) -> None:
    plan = plan_export(store, publish(count=2), Format.FOLDER, tmp_path / "out", column="detector")
    problems = check_export(plan).problems
    assert [(problem.crop_id, problem.kind.value) for problem in problems] == [
        ("p0#0", "no_label"),
        ("p1#0", "no_label"),
    ]
    assert {problem.detail for problem in problems} == {"its detector is null"}


@pytest.mark.parametrize("out", ["/", "..", "a/.."])
def test_a_destination_without_a_name(publish: Publish, store: Store, out: str) -> None:
    with pytest.raises(ExportError, match="no name for something new"):
        plan_export(store, publish(), Format.FOLDER, Path(out))


def test_a_full_disk_is_seen_before(
    publish: Publish, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 1024**2 + 100))
    for file_format, out in ((Format.STYLEGAN, "f.zip"), (Format.TFRECORD, "t"), (Format.PARQUET, "p")):
        assert listed(plan_export(store, version, file_format, tmp_path / out)) == {(None, "no_space")}
    copies = plan_export(store, version, Format.FOLDER, tmp_path / "c", settings=ExportSettings(link=False))
    assert listed(copies) == {(None, "no_space")}


@pytest.mark.parametrize("file_format", list(Format))
def test_the_estimate_is_near_the_truth(publish: Publish, store: Store, tmp_path: Path, file_format: Format) -> None:
    version = publish(count=40, side=64)
    out = tmp_path / ("out.zip" if file_format is Format.STYLEGAN else "out")
    plan = plan_export(store, version, file_format, out, settings=ExportSettings(link=False))
    estimated = check_export(plan).bytes
    export_version(plan)
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in files)
    assert 0.9 * written < estimated < 1.5 * written


@pytest.mark.parametrize("file_format", [Format.WEBDATASET, Format.IMAGEFOLDER, Format.FOLDER])
def test_the_estimate_counts_many_tags(publish: Publish, store: Store, tmp_path: Path, file_format: Format) -> None:
    version = publish(count=20, tags=[f"a_rather_long_tag_{k}" for k in range(500)])
    plan = plan_export(store, version, file_format, tmp_path / "out", settings=ExportSettings(link=False))
    estimated = check_export(plan).bytes
    export_version(plan)
    written = sum(path.stat().st_size for path in plan.out.rglob("*") if path.is_file())
    assert 0.9 * written < estimated < 1.5 * written


def test_labels_that_contradict_each_other(publish: Publish) -> None:
    manifest = publish().manifest()
    with pytest.raises(ExportError, match="not both"):
        make_labels(manifest, ("a",), ("b",))
    with pytest.raises(ExportError, match="not both"):
        make_labels(manifest, classes=("b",), column="rating")
    with pytest.raises(LabelError, match="more than once"):
        make_labels(manifest, ("a", "a"))
    with pytest.raises(ExportError, match="at least 1"):
        ExportSettings(shard_pictures=0)
