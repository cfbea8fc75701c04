"""The training readers: endless batches of equal pictures, the same ones from any index on.

order.py     which picture sample i is, and whether it is mirrored
reader.py    what all readers share: threads, pictures begun ahead, the cache of decoded pictures, mirroring, labels
version.py   the pictures of a published version
folder.py    the pictures of a plain folder
"""

from datasets.loader.folder import FolderReader
from datasets.loader.order import SampleOrder
from datasets.loader.reader import CACHE_BYTES, PREFETCH, Batch, PictureReader, Resize, usable_cores
from datasets.loader.version import VersionReader, decode_blob

__all__ = [
    "CACHE_BYTES",
    "PREFETCH",
    "Batch",
    "FolderReader",
    "PictureReader",
    "Resize",
    "SampleOrder",
    "VersionReader",
    "decode_blob",
    "usable_cores",
]
