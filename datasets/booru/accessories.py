"""What people wear on their heads, in face units; `behind` things are drawn before the face, the others last."""

import numpy as np

from datasets.booru.canvas import Canvas, Rgb
from datasets.booru.character import Character
from datasets.booru.curves import Frame, Points, arc, ellipse, mirrored, moved, ribbon_of, spline
from datasets.booru.face import slide
from datasets.booru.palette import light_of, line_of, mixed, shadow_of


def _piece(canvas: Canvas, frame: Frame, person: Character, shape: Points, colour: Rgb) -> None:
    placed = frame(shape)
    region = canvas.region(placed)
    canvas.paint(region, colour)
    if person.shading != "flat":
        canvas.shade(
            region.outside(moved(placed, person.light * 0.1 * frame.unit, -0.05 * frame.unit)), (206, 196, 222), 0.9
        )
    canvas.outline(placed, person.line * frame.unit, line_of(colour), closed=True)


def _side(person: Character) -> float:
    return 1.0 if person.seed % 4 in (1, 2) else -1.0


def _knot(
    canvas: Canvas, frame: Frame, person: Character, centre: tuple[float, float], size: float, lean: float
) -> None:
    place = frame.at(centre, frame.roll + lean)
    for side in (-1, 1):
        tail = np.array([(0.0, 0.0), (0.12, 0.75), (0.28, 0.6), (0.42, 0.7), (0.16, -0.02)]) * size
        _piece(canvas, place, person, mirrored(tail, side), mixed(person.trim, shadow_of(person.trim), 0.3))
    for side in (-1, 1):
        wing = (
            spline([(0.04, 0.0), (0.34, -0.34), (0.74, -0.42), (0.8, 0.0), (0.66, 0.3), (0.3, 0.18)], closed=True)
            * size
        )
        _piece(canvas, place, person, mirrored(wing, side), person.trim)
        canvas.stroke(
            place(mirrored(arc((0.1, 0.0), (0.3, -0.05), (0.46, -0.14)), side) * size),
            person.line * frame.unit,
            line_of(person.trim),
        )
    _piece(canvas, place, person, ellipse((0, 0), 0.13, 0.16) * size, person.trim)


def _ear(canvas: Canvas, frame: Frame, person: Character, side: int, tall: float) -> None:
    outer = mirrored(
        np.vstack(
            [
                arc((0.42, -1.38), (0.55, -1.75 - tall / 2), (0.98, -1.6 - tall)),
                arc((0.98, -1.6 - tall), (1.25, -1.5), (1.12, -0.9)),
            ]
        ),
        side,
    )
    inner = mirrored(
        np.vstack(
            [
                arc((0.6, -1.36), (0.7, -1.65 - tall / 2), (0.94, -1.5 - tall * 0.85)),
                arc((0.94, -1.5 - tall * 0.85), (1.08, -1.4), (1.0, -1.05)),
            ]
        ),
        side,
    )
    _piece(canvas, frame, person, outer, person.hair)
    placed = frame(inner)
    canvas.fill(
        placed, mixed(person.skin_rgb, (246, 150, 160), 0.4) if person.accessory == "cat_ears" else (250, 244, 236)
    )


def draw_accessory_behind(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Ears and horns grow from under the bangs; a halo and a hat's brim lie behind the head."""
    kind = person.accessory
    if kind in ("cat_ears", "fox_ears"):
        for side in (-1, 1):
            _ear(canvas, frame, person, side, 0.36 if kind == "cat_ears" else 0.62)
    elif kind == "horns":
        for side in (-1, 1):
            path = mirrored(spline([(0.72, -1.2), (1.05, -1.5), (1.22, -1.9), (1.02, -2.2)]), side)
            _piece(canvas, frame, person, ribbon_of(path, [0.4, 0.32, 0.2, 0.02]), (88, 66, 84))
    elif kind == "halo":
        ring = frame(ellipse((0.0, -1.98), 0.82, 0.2))
        canvas.outline(ring, 0.2 * frame.unit, (255, 226, 130), closed=True)
        canvas.outline(ring, 0.09 * frame.unit, (255, 250, 220), closed=True)


def draw_accessory(canvas: Canvas, frame: Frame, person: Character) -> None:
    """What lies over the hair and the face."""
    drawer = _DRAWERS.get(person.accessory)
    if drawer is not None:
        drawer(canvas, frame, person)


def draw_hair_ties(canvas: Canvas, frame: Frame, person: Character) -> None:
    """The ribbons that hold twintails and ponytails."""
    if person.hair_style == "twintails":
        for side in (-1, 1):
            _knot(canvas, frame, person, (1.13 * side, -0.98), 0.42, 0.5 * side)
    elif person.hair_style == "ponytail":
        tail = 1.0 if person.seed % 2 else -1.0  # the side on which hair.py hangs it
        _knot(canvas, frame, person, (0.95 * tail, -1.38), 0.5, 0.4 * tail)
    elif person.hair_style == "low_twintails":
        for side in (-1, 1):
            _piece(canvas, frame, person, ellipse((1.12 * side, 0.82), 0.17, 0.12, angle=0.5 * side), person.trim)


def _hair_ribbon(canvas: Canvas, frame: Frame, person: Character) -> None:
    if person.hair_style in ("twintails", "ponytail"):
        _hairclip(canvas, frame, person)
        return
    side = _side(person)
    centre = (0.0, -1.52) if person.seed % 3 == 0 else (0.86 * side, -1.18)
    _knot(canvas, frame, person, centre, 0.72, 0.0 if person.seed % 3 == 0 else 0.55 * side)


def _hairclip(canvas: Canvas, frame: Frame, person: Character) -> None:
    side = _side(person)
    for k in range(2):
        y = -0.78 + 0.16 * k
        bar = ribbon_of(np.array([(0.6 * side, y - 0.05), (0.98 * side, y + 0.09)]), [0.1, 0.1])
        _piece(canvas, frame, person, bar, person.trim)


def _hairband(canvas: Canvas, frame: Frame, person: Character) -> None:
    path = spline(
        [(-1.18, -0.62), (-0.98, -1.12), (-0.55, -1.4), (0.0, -1.5), (0.55, -1.4), (0.98, -1.12), (1.18, -0.62)]
    )
    _piece(canvas, frame, person, ribbon_of(path, [0.12, 0.2, 0.22, 0.2, 0.12]), person.trim)
    if person.seed % 2:
        _knot(canvas, frame, person, (0.72 * _side(person), -1.36), 0.46, 0.4 * _side(person))


def _hair_flower(canvas: Canvas, frame: Frame, person: Character) -> None:
    side = _side(person)
    place = frame.at((0.88 * side, -0.98), frame.roll)
    for k in range(5):
        angle = 2 * np.pi * k / 5 - np.pi / 2
        petal = ellipse((0.2 * np.cos(angle), 0.2 * np.sin(angle)), 0.22, 0.15, 24, angle)
        _piece(canvas, place, person, petal, mixed(person.trim, (255, 255, 255), 0.35))
    _piece(canvas, place, person, ellipse((0, 0), 0.11, 0.11), (250, 214, 96))


def _beret(canvas: Canvas, frame: Frame, person: Character) -> None:
    side = _side(person)
    hat = spline(
        [
            (-1.18, -1.0),
            (-1.38, -1.5),
            (-0.8, -2.0),
            (0.2, -2.06),
            (1.1, -1.8),
            (1.34, -1.32),
            (1.12, -0.98),
            (0.0, -1.3),
        ],
        closed=True,
    )
    _piece(canvas, frame, person, mirrored(hat, side), person.cloth)
    band = ribbon_of(
        spline([(-1.14, -0.98), (-0.6, -1.2), (0.0, -1.28), (0.6, -1.2), (1.14, -0.98)]), [0.1, 0.14, 0.14, 0.1]
    )
    _piece(canvas, frame, person, band, mixed(person.cloth, shadow_of(person.cloth), 0.6))
    _piece(
        canvas,
        frame,
        person,
        ribbon_of(np.array([(0.1 * side, -2.02), (0.14 * side, -2.22)]), [0.09, 0.12]),
        person.cloth,
    )


def _witch_hat(canvas: Canvas, frame: Frame, person: Character) -> None:
    side = _side(person)
    cone = np.vstack(
        [
            spline([(-1.0, -1.2), (-0.6, -2.0), (0.1, -2.75), (0.85, -2.9)]),
            spline([(0.62, -2.5), (0.7, -1.9), (1.0, -1.2)]),
        ]
    )
    dark = mixed(person.cloth, (52, 40, 78), 0.65)
    _piece(canvas, frame, person, mirrored(cone, side), dark)
    band = np.vstack(
        [spline([(-1.02, -1.18), (0.0, -1.34), (1.02, -1.18)]), spline([(0.92, -1.5), (0.0, -1.64), (-0.88, -1.5)])]
    )
    _piece(canvas, frame, person, mirrored(band, side), person.trim)
    brim = spline(
        [
            (-2.0, -0.9),
            (-1.0, -1.26),
            (0.0, -1.36),
            (1.0, -1.26),
            (2.0, -0.9),
            (1.2, -0.98),
            (0.0, -1.12),
            (-1.2, -0.98),
        ],
        closed=True,
    )
    _piece(canvas, frame, person, brim, dark)


def _headphones(canvas: Canvas, frame: Frame, person: Character) -> None:
    path = spline([(-1.24, -0.2), (-1.26, -0.8), (-0.82, -1.5), (0.0, -1.74), (0.82, -1.5), (1.26, -0.8), (1.24, -0.2)])
    _piece(canvas, frame, person, ribbon_of(path, [0.1, 0.13, 0.16, 0.13, 0.1]), mixed(person.trim, (40, 40, 52), 0.5))
    for side in (-1, 1):
        _piece(canvas, frame, person, ellipse((1.22 * side, -0.02), 0.2, 0.36), person.trim)
        _piece(canvas, frame, person, ellipse((1.28 * side, -0.02), 0.09, 0.2), light_of(person.trim))


def _glasses(canvas: Canvas, frame: Frame, person: Character) -> None:
    colour = mixed(person.trim, (50, 36, 46), 0.6)
    for side in (-1, 1):
        rim = slide(
            mirrored(
                spline(
                    [(0.14, -0.16), (0.5, -0.24), (0.86, -0.16), (0.84, 0.22), (0.5, 0.4), (0.18, 0.24)], closed=True
                ),
                side,
            ),
            person.turn,
            1.1,
        )
        canvas.outline(frame(rim), 0.05 * frame.unit, colour, closed=True)
        glint = slide(np.array([(0.26, -0.1), (0.36, -0.14)]) * (side, 1), person.turn, 1.1)
        canvas.outline(frame(glint), 0.04 * frame.unit, (255, 255, 255))
    bridge = slide(arc((-0.15, -0.02), (0.0, -0.09), (0.15, -0.02)), person.turn, 1.2)
    canvas.outline(frame(bridge), 0.05 * frame.unit, colour)


_DRAWERS = {
    "hair_ribbon": _hair_ribbon,
    "hairclip": _hairclip,
    "hairband": _hairband,
    "hair_flower": _hair_flower,
    "beret": _beret,
    "witch_hat": _witch_hat,
    "headphones": _headphones,
    "glasses": _glasses,
}
