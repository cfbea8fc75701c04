"""What the crop stage can be told."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, model_validator

from models.faces.geometry import FACE, PORTRAIT, CropRecipe
from tasks.detection import WITHOUT_NETWORK, Detector
from tasks.stage import StageParams


class CropMethod(StrEnum):
    """What is cut out of a picture."""

    FACE = "face"
    PORTRAIT = "portrait"
    ALIGN = "align"
    SQUARE = "square"
    WHOLE = "whole"


WITHOUT_FACES = (CropMethod.SQUARE, CropMethod.WHOLE)


class Edge(StrEnum):
    """What happens where a crop is larger than the picture."""

    SHRINK = "shrink"
    REFLECT = "reflect"
    PAD = "pad"


class SquareAt(StrEnum):
    """Which part of a picture its square is."""

    CENTRE = "centre"
    TOP = "top"


class CropParams(StageParams):
    """What is cut out of a post."""

    measured: ClassVar[frozenset[str]] = frozenset(
        {"method", "detector", "detector_file", "search_face", "search_side", "up", "down", "side"}
        | {"edge", "edge_colour", "square_at", "background"}
    )

    method: CropMethod = Field(
        CropMethod.FACE,
        description="face: hairline to neck; portrait: the whole head with hair; align: face, turned until the eyes "
        "are level; square: the picture's largest square; whole: the picture; the last two look for no faces",
    )
    detector: Detector = Field(
        Detector.UNION,
        description="lbp, animeface, union (found by either), agreement (found by both), or onnx: a network of yours",
    )
    detector_file: str | None = Field(
        None,
        description="A network's ONNX file: for onnx; with union it adds faces, with agreement it must see them, too",
    )
    search_face: int = Field(32, ge=24, le=2048, description="Smallest face box to look for, in pixels of the picture")
    search_side: int = Field(
        1024, ge=256, le=16384, description="Larger pictures are searched in a copy with this long side"
    )
    up: float | None = Field(None, ge=0, description="Reach above the face box, in box heights; none: the method's")
    down: float | None = Field(None, ge=0, description="Reach below the face box, in box heights; none: the method's")
    side: float | None = Field(None, ge=0, description="Reach on each side, in box widths; none: the method's")
    edge: Edge = Field(
        Edge.SHRINK,
        description="A crop larger than its picture: make it smaller, reflect the picture beyond its edge, or pad it "
        "with edge_colour",
    )
    edge_colour: str = Field("#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour of what pad adds")
    square_at: SquareAt = Field(SquareAt.CENTRE, description="Which square of a high picture: its middle, or its top")
    background: str = Field("#ffffff", pattern="^#[0-9a-fA-F]{6}$", description="Colour laid under transparent pixels")
    min_face: int = Field(40, ge=1, description="Narrowest face box to take, in pixels of the picture")
    min_score: float = Field(0.0, ge=0, le=1, description="Lowest detector score to take")
    min_size: int = Field(64, ge=1, description="Shortest side of a crop, in pixels")
    drop_cut: bool = Field(False, description="Drop faces that the border of the picture cuts off")
    drop_inside: bool = Field(
        True, description="Drop faces inside a larger face that is kept: pictures on clothes, wrong finds"
    )
    max_faces: int = Field(0, ge=0, description="Most faces that one crop may show; 0: any number")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.method in WITHOUT_FACES:
            return self
        if self.detector is Detector.ONNX and self.detector_file is None:
            raise ValueError("crop.detector = onnx needs a network: name its file in crop.detector_file")
        if self.detector in WITHOUT_NETWORK and self.detector_file is not None:
            raise ValueError(
                f"crop.detector = {self.detector} uses no network: leave crop.detector_file out, or choose onnx, "
                "union or agreement"
            )
        if self.method is CropMethod.ALIGN and self.detector in (Detector.LBP, Detector.ONNX):
            raise ValueError(f"crop.method = align needs eyes, and {self.detector} finds none: use animeface or union")
        return self

    def geometry(self) -> CropRecipe:
        """How far a crop reaches around its face."""
        base = PORTRAIT if self.method is CropMethod.PORTRAIT else FACE
        return CropRecipe(
            up=base.up if self.up is None else self.up,
            down=base.down if self.down is None else self.down,
            side=base.side if self.side is None else self.side,
            edge=self.edge.value,
            colour=read_colour(self.edge_colour),
        )


def read_colour(text: str) -> tuple[int, int, int]:
    """`#rrggbb` as red, green, blue."""
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
