"""The tables of the store, column by column: the only place that names a type.

All pixel units are pixels; boxes are x, y, w, h from the top left of the source picture as it should be seen
(EXIF orientation applied). Digests are lower-case hexadecimal SHA-256.
"""

from __future__ import annotations

import pyarrow as pa

LANDMARKS = pa.list_(pa.struct([("name", pa.string()), ("x", pa.float32()), ("y", pa.float32())]))

# One row per post: what a source says before any picture is opened.
POSTS = pa.schema(
    [
        pa.field("post_id", pa.string(), nullable=False),
        ("source_path", pa.string()),  # relative to the source's root, "/" as separator; null when there is no file
        ("rating", pa.string()),  # a datasets.sources.Rating value
        ("score", pa.int32()),
        ("favourites", pa.int32()),
        ("tags", pa.list_(pa.dictionary(pa.int32(), pa.string()))),  # codes: millions of posts share some thousand tags
        ("extension", pa.string()),  # as the metadata says it, lower case, without the dot
        ("declared_width", pa.int32()),
        ("declared_height", pa.int32()),
        ("deleted", pa.bool_()),
        ("banned", pa.bool_()),
        ("parent_id", pa.string()),
        ("created_at", pa.string()),
        ("file_bytes", pa.int64()),  # from the file system; null when there is no file
        ("file_stamp", pa.string()),  # changes with the file's content: says whether it must be read again
        ("problem", pa.string()),  # a datasets.sources.Problem value; null when the row is sound
        ("problem_detail", pa.string()),
    ]
)

# One row per published sample.
MANIFEST = pa.schema(
    [
        pa.field("crop_id", pa.string(), nullable=False),
        pa.field("post_id", pa.string(), nullable=False),
        pa.field("blob", pa.string(), nullable=False),  # digest of the published image file
        pa.field("pixel_digest", pa.string(), nullable=False),  # of the crop before upscaling
        ("width", pa.int32()),  # of the published image
        ("height", pa.int32()),
        ("box_x", pa.int32()),  # the crop, in source pixels
        ("box_y", pa.int32()),
        ("box_w", pa.int32()),
        ("box_h", pa.int32()),
        ("face_x", pa.float32()),  # the detected face inside it, in source pixels; null for crops without detection
        ("face_y", pa.float32()),
        ("face_w", pa.float32()),
        ("face_h", pa.float32()),
        ("detector", pa.string()),
        ("detector_score", pa.float64()),
        ("landmarks", LANDMARKS),
        ("face_cut", pa.bool_()),  # the face touches the border of the picture
        ("face_inside", pa.bool_()),  # the face lies inside a larger one
        ("faces_in_crop", pa.int32()),  # detected faces whose centre lies in the crop, its own included
        ("roll", pa.float32()),  # degrees, counter-clockwise, by which the crop was turned to level the eyes
        ("rating", pa.string()),
        ("score", pa.int32()),
        ("tags", pa.list_(pa.string())),
        ("source_path", pa.string()),
        ("file_digest", pa.string()),  # of the source file; null when it was never read
        ("true_format", pa.string()),  # of the source file, by its bytes: JPEG, PNG, ...
        ("mode", pa.string()),  # Pillow's mode of the source as stored: RGB, L, P, CMYK, RGBA, I;16, ...
        ("bits", pa.int32()),  # per channel, of the source
        ("frames", pa.int32()),  # of the source
        ("alpha_share", pa.float64()),  # 0..1: transparency of the source, averaged over its pixels
        ("jpeg_quality", pa.float64()),  # 1..100, estimated from the source's tables; null when it is no JPEG
        ("phash", pa.string()),  # 64 bits, 16 hexadecimal digits
        ("phash256", pa.string()),  # 256 bits, 64 hexadecimal digits
        ("blur", pa.float64()),  # 0..1: strength that edges lose when blurred once more; lower is blurrier
        ("colours", pa.int32()),  # unique RGB values, counted up to a limit
        ("saturation", pa.float64()),  # mean chroma, 0..255
        ("tint_residual", pa.float64()),  # 0..1: share of chroma that luma does not explain; near 0 when grey or toned
        ("contrast", pa.float64()),  # standard deviation of luma
        ("black_share", pa.float64()),  # 0..1: pixels near black
        ("white_share", pa.float64()),  # 0..1: pixels near white
        ("bars", pa.float64()),  # 0..1: the part of the crop's height or width that uniform bars at its edges take up
        ("aspect", pa.float64()),  # long side / short side, 1 and more
        ("native_scale", pa.float64()),  # 0..1: side of the picture that its detail fills; .5 looks enlarged twofold
        ("upscaled_by", pa.string()),
        ("upscale_factor", pa.float64()),  # published side / crop side
        ("d_score", pa.float64()),
        ("d_percentile", pa.float64()),  # 0..100 within the set that was ranked
        ("decision", pa.string()),  # keep | reject | unsure; null when nobody has decided
        ("augmentation", pa.string()),
        ("parent_crop", pa.string()),
    ]
)

# What makes two versions the same dataset. Paths, times, scores of a network and history are left out on purpose.
IDENTITY_COLUMNS = (
    "crop_id",
    "post_id",
    "blob",
    "pixel_digest",
    "width",
    "height",
    "box_x",
    "box_y",
    "box_w",
    "box_h",
    "rating",
    "score",
    "tags",
    "augmentation",
    "parent_crop",
)

# Why an item is out. One row per item, at the stage that dropped it.
VERDICT_FIELDS = [
    pa.field("reason", pa.string(), nullable=False),  # a short word: the key of the counts
    pa.field("measurement", pa.string()),  # the column that was judged
    pa.field("value", pa.float64()),  # what was measured
    pa.field("threshold", pa.float64()),  # what the recipe asks for
    pa.field("parameter", pa.string()),  # the recipe's key, e.g. clean.min_blur
    pa.field("detail", pa.string()),  # a sentence, where figures do not say it
    pa.field("related", pa.string()),  # the other item: the keeper of a duplicate
]
LEDGER = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),  # the crop_id if there is one, else the post_id
        *VERDICT_FIELDS,
        pa.field("crop_blob", pa.string()),  # the crop's pixels before upscaling, for review
        *[pa.field(f.name, f.type) for f in MANIFEST],  # what was known of the item when it was dropped
    ]
)

VERDICTS = pa.schema([pa.field("keep", pa.bool_(), nullable=False), *[f.with_nullable(True) for f in VERDICT_FIELDS]])

# One row per human verdict, append-only.
DECISIONS = pa.schema(
    [
        pa.field("pixel_digest", pa.string(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),  # keep | reject | unsure
        pa.field("who", pa.string(), nullable=False),
        pa.field("decided_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("note", pa.string()),
        pa.field("version", pa.string()),  # the version that was looked at, e.g. faces@v7
        pa.field("crop_id", pa.string()),
    ]
)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and types; columns that the table lacks are null.

    Raises pa.ArrowInvalid when a value does not fit its type.
    """
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
