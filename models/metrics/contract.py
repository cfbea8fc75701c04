"""What a user's network takes and gives, as the JSON file beside it says: for `dino.onnx`, `dino.onnx.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from models.metrics.extraction import ExtractorError, Pictures
from models.metrics.resizing import resize_pictures

Triple = tuple[float, float, float]
MAX_SIDE = 4096  # pixels


class Contract(BaseModel):
    """How pictures are made into a network's input, and which of its outputs are features."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int | tuple[int, int] | None = Field(description="Side, or height and width, in pixels; null: as they are.")
    input: Literal["float32", "uint8"] = Field("float32", description="Type of the input; uint8 is 0 to 255.")
    range: tuple[float, float] = Field((0.0, 1.0), description="What black and white become in a float input.")
    mean: Triple = Field((0.0, 0.0, 0.0), description="Subtracted after that, in the order of `colours`.")
    std: Triple = Field((1.0, 1.0, 1.0), description="Divided by after that, in the order of `colours`.")
    colours: Literal["rgb", "bgr"] = Field("rgb", description="Order of the channels.")
    layout: Literal["NCHW", "NHWC"] = Field("NCHW", description="Order of the input's dimensions.")
    output: str | int | None = Field(None, description="Name or number of the output; null: the only one.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        sides = (self.size,) if isinstance(self.size, int) else self.size or (1,)
        if not all(1 <= side <= MAX_SIDE for side in sides):
            raise ValueError(f"size must be 1 to {MAX_SIDE} pixels")
        if min(self.std) <= 0 or self.range[0] >= self.range[1]:
            raise ValueError("std must be above 0, and range go from low to high")
        if self.input == "uint8" and {"range", "mean", "std"} & self.model_fields_set:
            raise ValueError("a uint8 input has no range, mean or std: it is 0 to 255")
        return self

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width; None: the pictures' own."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def prepare(self, pictures: Pictures, device: torch.device) -> Tensor:
        """uint8 RGB (N, H, W, 3) to the network's input on `device`."""
        x = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float()
        if self.sides is not None:
            x = resize_pictures(x, *self.sides)
        if self.colours == "bgr":
            x = x.flip(1)
        if self.input == "uint8":
            x = x.round().clamp(0, 255).to(torch.uint8)
        else:
            low, high = self.range
            mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
            x = (x * ((high - low) / 255) + low - mean) / std
        return (x if self.layout == "NCHW" else x.permute(0, 2, 3, 1)).contiguous()

    def channels_first(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """A map of features as (N, D, h, w), if it is one; anything else as it is."""
        return features.transpose(0, 3, 1, 2) if self.layout == "NHWC" and features.ndim == 4 else features


EXAMPLE = Contract(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def contract_path(path: Path) -> Path:
    """Where a network's contract lies: its own path with `.json` behind."""
    return path.with_name(f"{path.name}.json")


def read_contract(path: Path) -> Contract | None:
    """The contract of the network at `path`; None where there is none. Raises `ExtractorError` for a bad one."""
    place = contract_path(path)
    if not place.exists():
        return None
    try:
        return Contract.model_validate_json(place.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ExtractorError(f"{place}: {where}: {first['msg']}. An example: {describe(EXAMPLE)}") from error
    except OSError as error:
        raise ExtractorError(f"{place} cannot be read: {error.strerror or error}.") from error


def describe(contract: Contract) -> str:
    """As one line of JSON, the same for equal contracts."""
    return json.dumps(contract.model_dump(mode="json"), sort_keys=True)


def demand_contract(path: Path, reason: str) -> ExtractorError:
    """The error that asks for a contract, with one to start from."""
    return ExtractorError(
        f"{path.name} {reason}: write {contract_path(path)} that says so, for instance {describe(EXAMPLE)}"
    )
