"""The formats by name. Nothing heavy is imported here: the command line lists them in its help."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """What a version can be exported as."""

    STYLEGAN = "stylegan"  # zip of StyleGAN2-ADA and StyleGAN3
    TFRECORD = "tfrecord"  # multi-resolution records of StyleGAN and StyleGAN2
    WEBDATASET = "webdataset"  # tar shards
    IMAGEFOLDER = "imagefolder"  # Hugging Face and torchvision
    PARQUET = "parquet"  # Hugging Face, pictures inside
    FOLDER = "folder"  # pictures and a CSV
