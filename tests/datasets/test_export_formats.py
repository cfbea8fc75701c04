"""Every format, read back by somebody else's reader: the same pixels, the same labels, in the promised order."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tfrecord.reader
import webdataset
from PIL import Image

from datasets.digests import digest_pixels
from datasets.exports.crc32c import masked_crc32c
from datasets.exports.format import Format
from datasets.exports.plan import ExportPlan, ExportSettings, plan_export, safe_name
from datasets.exports.run import export_version
from datasets.exports.stylegan_zip import encode_plain_png
from datasets.exports.tfrecord import halvings, shuffled
from datasets.pictures import decode_picture, encode_png
from datasets.schema import LEDGER, MANIFEST
from datasets.store import Store
from datasets.version import Version, publish_version

COUNT, SIDE = 7, 16
HAIR = ("blonde_hair", "black_hair")
IDS = ("12#0", "12#0+mirror", "12#1", "a b/ü.png#0", "a_b/ü.png#0", "A b/ü.png#0", "zz#0")


@pytest.fixture
def pixels(draw_noise: Callable[..., np.ndarray]) -> dict[str, np.ndarray]:
    return {crop_id: draw_noise(seed, SIDE) for seed, crop_id in enumerate(IDS)}


@pytest.fixture
def version(store: Store, pixels: dict[str, np.ndarray]) -> Version:
    """Seven pictures; every even one is blonde, every odd one black-haired, every third one smiles."""
    rows = []
    for k, (crop_id, picture) in enumerate(pixels.items()):
        row: dict[str, Any] = {"crop_id": crop_id, "post_id": crop_id.split("#")[0], "width": SIDE, "height": SIDE}
        row |= {"blob": store.blobs.put(encode_png(picture)), "pixel_digest": digest_pixels(picture)}
        row |= {"tags": [HAIR[k % 2], *(["smile"] if k % 3 == 0 else [])], "blur": float("nan") if k == 0 else 1.5}
        row |= {"landmarks": [{"name": "nose", "x": 1.5, "y": 2.5}] if k == 1 else None, "score": k, "rating": "safe"}
        rows.append(row)
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST)
    lineage: dict[str, Any] = {"recipe": {}, "stage_versions": {}, "weights": {}, "counts": {}}
    return publish_version(store, "faces", manifest, LEDGER.empty_table(), lineage, lambda *args: None)


@pytest.fixture
def export(store: Store, version: Version, tmp_path: Path) -> Callable[..., tuple[Path, ExportPlan]]:
    """export(format, out=name, tags, classes, **settings) -> the export's path and its plan."""

    def run(file_format: Format, out: str = "out", **options: Any) -> tuple[Path, ExportPlan]:
        names = {key: options.pop(key) for key in ("tags", "classes") if key in options}
        plan = plan_export(store, version, file_format, tmp_path / out, **names, settings=ExportSettings(**options))
        done = export_version(plan)
        assert (done.pictures, done.already_there) == (COUNT, False)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out, "store"])
        return plan.out, plan

    return run


Export = Callable[..., tuple[Path, ExportPlan]]


def read_picture(data: bytes | Path) -> np.ndarray:
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def check_provenance(said: dict[str, Any], version: Version, file_format: Format) -> None:
    assert said["version"] == "faces@v1"
    assert said["content_digest"] == version.content_digest
    assert (said["format"], said["pictures"]) == (file_format.value, COUNT)


# -- StyleGAN2-ADA, StyleGAN3 --


def load_as_stylegan(path: Path) -> tuple[list[str], list[np.ndarray], Any]:
    """Names, pictures and labels, found as the trainers' loader finds them: by Pillow's extensions, sorted."""
    with zipfile.ZipFile(path) as archive:
        Image.init()
        names = sorted(n for n in archive.namelist() if os.path.splitext(n)[1].lower() in Image.EXTENSION)  # noqa: PTH122
        pictures = [read_picture(archive.read(name)) for name in names]
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None
    return names, pictures, labels


def test_stylegan_zip(export: Export, version: Version, pixels: dict[str, np.ndarray]) -> None:
    out, plan = export(Format.STYLEGAN, "faces.zip")
    names, pictures, labels = load_as_stylegan(out)
    assert names == [f"00000/img{k:08d}.png" for k in range(COUNT)]
    assert labels is None
    for crop_id, picture in zip(plan.crop_ids, pictures, strict=True):
        np.testing.assert_array_equal(picture, pixels[crop_id])
    with zipfile.ZipFile(out) as archive:
        check_provenance(json.loads(archive.read("kaobako.json")), version, Format.STYLEGAN)
        assert archive.comment.decode().split() == ["kaobako", "faces@v1", version.content_digest]
        listed = list(csv.DictReader(io.StringIO(archive.read("kaobako-pictures.csv").decode())))
        assert [(row["picture"], row["crop_id"]) for row in listed] == list(zip(names, plan.crop_ids, strict=True))
        # level 0 keeps every row as it is: a filter byte and the pixels
        assert all(archive.getinfo(name).file_size > SIDE * (3 * SIDE + 1) for name in names)


@pytest.mark.parametrize("shape", [(4, 4, 3), (8, 8, 1), (256, 256, 3)])
def test_plain_pngs_are_sound(shape: tuple[int, int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    data = encode_plain_png(picture)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == {1: "L", 3: "RGB"}[shape[2]]
        np.testing.assert_array_equal(np.asarray(image).reshape(shape), picture)
    np.testing.assert_array_equal(decode_picture(data).rgb[:, :, : shape[2]], picture)  # checks every CRC
    assert picture.nbytes < len(data) < picture.nbytes + shape[0] + 200


def test_stylegan_labels(export: Export, store: Store) -> None:
    out, _ = export(Format.STYLEGAN, "classes.zip", classes=HAIR)
    names, _, labels = load_as_stylegan(out)
    tags = read_tags(store)
    assert labels == [[name, HAIR.index(row[0])] for name, row in zip(names, tags, strict=True)]
    assert np.array([label for _, label in labels]).dtype == np.int64


def test_stylegan_vectors(export: Export, store: Store) -> None:
    out, _ = export(Format.STYLEGAN, "tags.zip", tags=("smile", "black_hair"))
    names, _, labels = load_as_stylegan(out)
    expected = [[float("smile" in row), float("black_hair" in row)] for row in read_tags(store)]
    assert labels == [[name, vector] for name, vector in zip(names, expected, strict=True)]


def read_tags(store: Store) -> list[list[str]]:
    tags: list[list[str]] = pq.read_table(store.version_folder("faces", 1) / "manifest.parquet")["tags"].to_pylist()
    return tags


# -- StyleGAN, StyleGAN2 --


def read_records(path: Path) -> list[np.ndarray]:
    """Pictures of a TFRecord file by the `tfrecord` package, channels first; checksums by hand (it skips them)."""
    data, position = path.read_bytes(), 0
    while position < len(data):
        length = data[position : position + 8]
        payload = data[position + 12 : position + 12 + int.from_bytes(length, "little")]
        assert struct.unpack("<I", data[position + 8 : position + 12])[0] == masked_crc32c(length)
        position += 16 + len(payload)
        assert struct.unpack("<I", data[position - 4 : position])[0] == masked_crc32c(payload)
    loader = tfrecord.reader.tfrecord_loader(str(path), None, {"shape": "int", "data": "byte"})
    return [np.frombuffer(bytes(record["data"]), np.uint8).reshape(record["shape"]) for record in loader]


def test_records_of_every_resolution(export: Export, version: Version, pixels: dict[str, np.ndarray]) -> None:
    out, plan = export(Format.TFRECORD, "records")
    assert sorted(path.name for path in out.glob("*.tfrecords")) == [f"faces-r0{k}.tfrecords" for k in (2, 3, 4)]
    order = np.arange(COUNT)
    np.random.RandomState(123).shuffle(order)
    for level in (4, 3, 2):
        records = read_records(out / f"faces-r0{level}.tfrecords")
        assert len(records) == COUNT
        for record, row in zip(records, order, strict=True):
            exact = pixels[plan.crop_ids[row]].astype(np.float64).transpose(2, 0, 1)
            step = 1 << (4 - level)
            blocks = exact.reshape(3, 1 << level, step, 1 << level, step).mean(axis=(2, 4))
            np.testing.assert_array_equal(record, np.rint(blocks).astype(np.uint8))
    check_provenance(json.loads((out / "faces-kaobako.json").read_text()), version, Format.TFRECORD)
    assert not list(out.glob("*.labels"))
    listed = list(csv.DictReader((out / "faces-kaobako-pictures.csv").open(encoding="utf-8")))
    assert [row["crop_id"] for row in listed] == [plan.crop_ids[row] for row in order]


@pytest.mark.parametrize("kind", ["classes", "tags"])
def test_record_labels_follow_the_records(export: Export, store: Store, kind: str) -> None:
    out, _ = export(Format.TFRECORD, kind, **{kind: HAIR})
    labels = np.load(out / "faces-rxx.labels")
    assert labels.dtype == np.float32
    expected = [[float(tag in row) for tag in HAIR] for row in read_tags(store)]
    np.testing.assert_array_equal(labels, np.array(expected)[shuffled(COUNT)])


def test_halving_rounds_once() -> None:
    """0, 0, 1, 1 and so on: rounding each level would give 1 or 0 where the mean of all sixteen is 0.5 or 1.5."""
    picture = np.zeros((1, 16, 16), np.uint8)
    picture[0, :, 0::2] = 3
    levels = list(halvings(picture))
    assert [level.shape for level in levels] == [(1, 16, 16), (1, 8, 8), (1, 4, 4)]
    assert set(np.unique(levels[1])) == {2}  # 1.5, half to even
    picture[0, ::2] = 0
    assert set(np.unique(list(halvings(picture))[2])) == {1}  # 0.75


# -- WebDataset --


def test_webdataset_shards(export: Export, store: Store, version: Version, pixels: dict[str, np.ndarray]) -> None:
    out, plan = export(Format.WEBDATASET, "shards", classes=HAIR, shard_pictures=3)
    shards = sorted(str(path) for path in out.glob("*.tar"))
    assert [Path(shard).name for shard in shards] == [f"faces-{k:06d}.tar" for k in range(3)]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["crop_id"] for sample in samples] == plan.crop_ids
    for sample, tags in zip(samples, read_tags(store), strict=True):
        np.testing.assert_array_equal(sample["png"], pixels[sample["json"]["crop_id"]])
        assert sample["cls"] == HAIR.index(tags[0])
        assert sample["json"]["label"] == tags[0]
        assert sample["json"]["tags"] == tags
        assert "." not in sample["__key__"]
        assert sample["__key__"] == safe_name(sample["json"]["crop_id"])
    assert [sample["json"]["blur"] for sample in samples].count(None) == 1  # not a number, and JSON has no NaN
    index = json.loads((out / "index.json").read_text())
    assert [(shard["url"], shard["nsamples"]) for shard in index["shardlist"]] == [
        ("faces-000000.tar", 3),
        ("faces-000001.tar", 3),
        ("faces-000002.tar", 1),
    ]
    assert [shard["filesize"] for shard in index["shardlist"]] == [Path(shard).stat().st_size for shard in shards]
    check_provenance(json.loads((out / "kaobako.json").read_text()), version, Format.WEBDATASET)
    head = (out / "README.md").read_text().split("---")[1]  # index.json beside the shards is no data
    assert 'configs: [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}]' in head


def test_webdataset_carries_the_blobs_as_they_are(export: Export, store: Store) -> None:
    out, plan = export(Format.WEBDATASET)
    samples = list(webdataset.WebDataset(str(out / "faces-000000.tar"), shardshuffle=False))
    assert [sample["png"] for sample in samples] == [store.blobs.path(blob).read_bytes() for blob in plan.blobs]
    assert all("cls" not in sample for sample in samples)


LONG_IDS = (*("a" * length + "#123456+" + "b" * 20 for length in (67, 68)), "c" * 5000, "日" * 300 + "#0")


def test_webdataset_has_room_for_long_names(store: Store, pixels: dict[str, np.ndarray], tmp_path: Path) -> None:
    rows = [
        {"crop_id": one, "post_id": "p", "width": SIDE, "height": SIDE, "pixel_digest": digest_pixels(picture)}
        | {"blob": store.blobs.put(encode_png(picture)), "tags": ["smile"]}
        for one, picture in zip(LONG_IDS, pixels.values(), strict=False)
    ]
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST)
    lineage: dict[str, Any] = {"recipe": {}, "stage_versions": {}, "weights": {}, "counts": {}}
    version = publish_version(store, "faces", manifest, LEDGER.empty_table(), lineage, lambda *args: None)
    out = tmp_path / "out"
    export_version(plan_export(store, version, Format.WEBDATASET, out, classes=("smile",)))
    samples = list(webdataset.WebDataset(str(out / "faces-000000.tar"), shardshuffle=False).decode("rgb8"))
    assert sorted(sample["json"]["crop_id"] for sample in samples) == sorted(LONG_IDS)
    assert max(len(sample["__key__"]) for sample in samples) == 95


@pytest.mark.parametrize("file_format", [Format.STYLEGAN, Format.IMAGEFOLDER, Format.WEBDATASET, Format.PARQUET])
def test_classes_from_a_column(store: Store, version: Version, tmp_path: Path, file_format: Format) -> None:
    out = tmp_path / "out.zip"
    plan = plan_export(store, version, file_format, out, column="rating")
    export_version(plan)
    assert plan.labels is not None
    assert (plan.labels.names, plan.labels.column) == (("safe",), "rating")
    if file_format is Format.STYLEGAN:
        assert [label for _, label in load_as_stylegan(out)[2]] == [0] * COUNT
    elif file_format is Format.IMAGEFOLDER:
        assert len(list((out / "safe").iterdir())) == COUNT
    elif file_format is Format.WEBDATASET:
        samples = list(webdataset.WebDataset(str(out / "faces-000000.tar"), shardshuffle=False).decode())
        assert [(sample["cls"], sample["json"]["label"]) for sample in samples] == [(0, "safe")] * COUNT
    else:
        assert pq.read_table(out / "data")["label"].to_pylist() == [0] * COUNT


def test_shards_are_cut_by_bytes_too(export: Export, store: Store) -> None:
    size = store.blobs.path(next(iter(store.blobs.digests()))).stat().st_size
    out, _ = export(Format.WEBDATASET, shard_bytes=int(2.5 * size))
    index = json.loads((out / "index.json").read_text())
    assert [shard["nsamples"] for shard in index["shardlist"]] == [2, 2, 2, 1]


# -- Hugging Face --


def test_parquet_embeds_the_pictures(export: Export, store: Store, version: Version) -> None:
    out, plan = export(Format.PARQUET, classes=HAIR, shard_pictures=3)
    paths = sorted((out / "data").iterdir())
    assert [path.name for path in paths] == [f"train-0000{k}-of-00003.parquet" for k in range(3)]
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    assert table["crop_id"].to_pylist() == plan.crop_ids
    images = table["image"].to_pylist()
    assert [image["bytes"] for image in images] == [store.blobs.path(blob).read_bytes() for blob in plan.blobs]
    assert [image["path"] for image in images] == [f"{name}.png" for name in plan.names]
    assert table["label"].to_pylist() == [HAIR.index(tags[0]) for tags in read_tags(store)]
    manifest = version.manifest()
    for name in (name for name in MANIFEST.names if name != "blur"):
        assert table[name].to_pylist() == manifest[name].to_pylist(), name
    np.testing.assert_array_equal(table["blur"].to_numpy(), manifest["blur"].to_numpy())  # NaN where it was
    group = pq.read_metadata(paths[0]).row_group(0)
    packed = {group.column(k).path_in_schema: group.column(k).compression for k in range(group.num_columns)}
    assert packed.pop("image.bytes") == "UNCOMPRESSED"
    assert set(packed.values()) == {"ZSTD"}
    said = json.loads(pq.read_schema(paths[0]).metadata[b"huggingface"])["info"]["features"]
    assert said["image"] == {"_type": "Image"}
    assert said["label"] == {"names": list(HAIR), "_type": "ClassLabel"}
    assert said["tags"] == {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}
    assert said["blur"] == {"dtype": "float64", "_type": "Value"}
    assert said["landmarks"][0]["x"] == {"dtype": "float32", "_type": "Value"}
    assert list(said) == table.column_names
    check_provenance(json.loads((out / "kaobako.json").read_text()), version, Format.PARQUET)
    head = (out / "README.md").read_text().split("---")[1]
    assert 'configs: [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]' in head


def test_parquet_tag_labels(export: Export, store: Store) -> None:
    out, _ = export(Format.PARQUET, tags=("smile", "black_hair"))
    table = pq.read_table(out / "data" / "train-00000-of-00001.parquet")
    names = ("smile", "black_hair")
    expected = [[k for k, name in enumerate(names) if name in tags] for tags in read_tags(store)]
    assert table["labels"].to_pylist() == expected


def test_image_folder(export: Export, store: Store, version: Version, pixels: dict[str, np.ndarray]) -> None:
    out, plan = export(Format.IMAGEFOLDER, classes=HAIR)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(HAIR)
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [row["crop_id"] for row in rows] == plan.crop_ids
    for row, tags in zip(rows, read_tags(store), strict=True):
        assert row["file_name"] == f"{tags[0]}/{safe_name(row['crop_id'])}.png"
        assert row["label"] == tags[0]
        np.testing.assert_array_equal(read_picture(out / row["file_name"]), pixels[row["crop_id"]])
    check_provenance(json.loads((out / "kaobako.json").read_text()), version, Format.IMAGEFOLDER)
    card = (out / "README.md").read_text()
    assert card.startswith('---\npretty_name: "faces"\n')
    # else a class called `test` or `dev` would be taken for a split
    assert 'configs: [{"config_name": "default", "data_files": [{"split": "train", "path": "**"}]}]' in card
    assert 'load_dataset("PATH/OF/THIS/FOLDER", split="train")' in card


# -- plain folder --


@pytest.mark.parametrize("link", [True, False])
def test_plain_folder(export: Export, store: Store, pixels: dict[str, np.ndarray], link: bool) -> None:
    out, plan = export(Format.FOLDER, link=link, tags=("smile",))
    rows = list(csv.DictReader((out / "manifest.csv").open(encoding="utf-8")))
    assert [row["crop_id"] for row in rows] == plan.crop_ids
    for row in rows:
        np.testing.assert_array_equal(read_picture(out / row["file"]), pixels[row["crop_id"]])
        same_file = (out / row["file"]).samefile(store.blobs.path(row["blob"]))
        assert same_file == link
    assert [row["labels"] for row in rows] == ["smile" if "smile" in tags else "" for tags in read_tags(store)]
    assert {path.name for path in out.iterdir()} == {row["file"] for row in rows} | {"manifest.csv", "kaobako.json"}


# -- names --


def test_names_are_safe_unique_and_stable() -> None:
    names = [safe_name(crop_id) for crop_id in IDS]
    assert names[:3] == ["12_0", "12_0_mirror", "12_1"]
    assert safe_name("1000.jpg#0") == "1000_jpg_0"
    assert len({name.lower() for name in names}) == len(IDS)
    nasty = [
        "../../etc/passwd#0",
        "a.b#0",
        "x" * 5000 + "#0",
        "con#0\n",
        "#0",
        "日本#0",
        "a_0",
        "A#0",
        "a#0",
        "-rf#0",
        "---",
    ]
    nasty += ["a.1#0", "a_1#0", "a#1", "a.1", "a#1+x", "a.1.x#0", "a_1_0", "..#0"]
    made = [safe_name(crop_id) for crop_id in nasty]
    assert all(name.isascii() and set(name) & set("./\\ \n#") == set() and 0 < len(name) <= 95 for name in made)
    assert len({name.lower() for name in made}) == len(nasty)
