"""Neck, shoulders and clothes, in body units: as face units, but the origin is the chin and the roll is the body's."""

from collections.abc import Callable

import numpy as np

from datasets.booru.canvas import Canvas, Region, Rgb
from datasets.booru.character import Character
from datasets.booru.curves import Frame, Points, arc, ellipse, mirrored, moved, ribbon_of, spline
from datasets.booru.palette import line_of, mixed, shadow_of

BOTTOM = 12.0
WHITE: Rgb = (250, 250, 252)


def _both(half: Points) -> Points:
    """Close a right half (from the middle top to the middle bottom) with its mirror image."""
    return np.vstack([half, mirrored(half, -1)[::-1]])


def _shoulders(person: Character) -> Points:
    wide = 1.52 if person.gender == "girl" else 1.9
    half = [
        (0.36, 0.42),
        (0.6, 0.56),
        (wide * 0.78, 0.82),
        (wide, 1.22),
        (wide * 1.07, 2.0),
        (wide * 1.12, 3.4),
        (wide * 1.25, 6.0),
        (wide * 1.3, BOTTOM),
    ]
    return _both(spline(half, steps=6))


def draw_neck(canvas: Canvas, frame: Frame, person: Character) -> Region:
    """Neck and collarbones in skin, and the shadow of the chin on them."""
    wide = 0.33 if person.gender == "girl" else 0.42
    half = spline([(wide, -0.5), (wide, 0.12), (wide * 1.12, 0.38), (0.7, 0.64), (0.98, 0.86), (1.0, 1.5)])
    shape = frame(_both(half))
    region = canvas.region(shape)
    canvas.paint(region, person.skin_rgb)
    chin = frame(spline([(-0.5, -0.6), (-0.44, 0.1), (-0.1 * person.light, 0.34), (0.44, 0.1), (0.5, -0.6)]))
    canvas.paint(region.inside(chin), shadow_of(person.skin_rgb))
    ink = line_of(person.skin_rgb, 0.45)
    for side in (-1, 1):
        canvas.stroke(frame(mirrored(half[:26], side)), person.line * frame.unit, ink, (0.6, 1.0, 0.8, 0.5))
        bone = mirrored(arc((0.16, 0.78), (0.4, 0.72), (0.85, 0.78)), side)
        canvas.stroke(frame(bone), 0.03 * frame.unit, shadow_of(person.skin_rgb))
    return region


def _cloth(canvas: Canvas, frame: Frame, person: Character, shape: Points, colour: Rgb) -> Region:
    """Fill, shade and ink one piece of cloth."""
    placed = frame(shape)
    region = canvas.region(placed)
    canvas.paint(region, colour)
    if person.shading != "flat" and not region.empty:
        rim = region.outside(moved(placed, person.light * 0.2 * frame.unit, -0.06 * frame.unit))
        canvas.shade(rim, (204, 196, 222), 0.9)
    canvas.outline(placed, person.line * frame.unit, line_of(colour), closed=True)
    return region


def _arms(canvas: Canvas, frame: Frame, person: Character, colour: Rgb, region: Region) -> None:
    """The seams between arms and body, and a few folds."""
    wide = 1.1 if person.gender == "girl" else 1.4
    ink = line_of(colour)
    for side in (-1, 1):
        seam = spline([(wide, 1.75), (wide * 0.98, 2.4), (wide * 1.04, 3.6), (wide * 1.06, 6.0)])
        if person.shading != "flat":
            fold = ribbon_of(seam, [0.05, 0.35, 0.3, 0.2])
            canvas.shade(region.inside(frame(mirrored(fold, side))), (206, 198, 224), 0.9)
        canvas.stroke(frame(mirrored(seam, side)), person.line * frame.unit, ink, (0.2, 1.0, 1.0, 1.0))
        for start, end in (((1.3, 1.45), (1.05, 1.7)), ((1.5, 1.9), (1.25, 2.1))):
            crease = arc(start, ((start[0] + end[0]) / 2, end[1] + 0.05), end)
            canvas.stroke(frame(mirrored(crease, side)), person.line * 0.8 * frame.unit, ink, (0.1, 1.0, 0.2))


def _bow(
    canvas: Canvas, frame: Frame, person: Character, centre: tuple[float, float], size: float, colour: Rgb
) -> None:
    """A tied bow with two tails."""
    place = frame.at(centre, frame.roll)
    for side in (-1, 1):
        tail = np.array([(0.02, 0.0), (0.28, 0.95), (0.42, 0.72), (0.6, 0.82), (0.18, -0.05)]) * size
        _cloth(canvas, place, person, mirrored(tail, side), mixed(colour, shadow_of(colour), 0.3))
    for side in (-1, 1):
        wing = (
            spline([(0.05, 0.0), (0.4, -0.3), (0.78, -0.34), (0.8, 0.05), (0.7, 0.36), (0.36, 0.2)], closed=True) * size
        )
        _cloth(canvas, place, person, mirrored(wing, side), colour)
        crease = mirrored(arc((0.12, 0.0), (0.3, -0.02), (0.48, -0.1)), side) * size
        canvas.stroke(place(crease), person.line * frame.unit, line_of(colour))
    _cloth(canvas, place, person, ellipse((0, 0), 0.15, 0.18) * size, colour)


def _serafuku(canvas: Canvas, frame: Frame, person: Character) -> None:
    collar = person.cloth if sum(person.cloth) < 560 else (58, 72, 122)
    body = _cloth(canvas, frame, person, _neckline(person, 1.35), WHITE)
    _arms(canvas, frame, person, WHITE, body)
    for side in (-1, 1):
        flap = mirrored(
            np.vstack(
                [
                    spline([(0.42, 0.36), (0.3, 0.9), (0.0, 1.55)]),
                    spline([(0.1, 1.85), (0.75, 1.62), (1.22, 1.2), (1.12, 0.66)]),
                ]
            ),
            side,
        )
        _cloth(canvas, frame, person, flap, collar)
        stripe = mirrored(spline([(0.17, 1.7), (0.7, 1.47), (1.1, 1.1), (1.02, 0.68)]), side)
        canvas.outline(frame(stripe), 0.045 * frame.unit, WHITE)
    _bow(canvas, frame, person, (0.0, 1.72), 0.72, person.trim if sum(person.trim) < 620 else (206, 66, 76))


def _neckline(person: Character, depth: float) -> Points:
    """Shoulders with a V cut out of the middle, `depth` below the chin."""
    outer = _shoulders(person)
    return np.vstack([outer, [(-0.36, 0.42), (0.0, depth), (0.36, 0.42)]])


def _collared_shirt(canvas: Canvas, frame: Frame, person: Character) -> None:
    body = _cloth(canvas, frame, person, _neckline(person, 0.95), person.cloth)
    _arms(canvas, frame, person, person.cloth, body)
    canvas.stroke(
        frame([(0.0, 1.0), (0.0, 4.0), (0.0, BOTTOM)]), person.line * frame.unit, line_of(person.cloth), (1.0, 1.0)
    )
    for k in range(8):
        canvas.fill(
            frame(ellipse((0.09, 1.75 + 0.62 * k), 0.045, 0.045, 12)), mixed(person.cloth, line_of(person.cloth), 0.5)
        )
    white = mixed(person.cloth, WHITE, 0.75)
    for side in (-1, 1):
        flap = mirrored(np.array([(0.36, 0.26), (0.0, 0.92), (0.34, 1.3), (0.78, 0.6)]), side)
        _cloth(canvas, frame, person, flap, white)
    if person.seed % 2:
        _bow(canvas, frame, person, (0.0, 1.05), 0.62, person.trim)
    else:
        tie = np.array([(-0.13, 0.88), (0.13, 0.88), (0.1, 1.12), (0.24, 2.3), (0.0, 2.62), (-0.24, 2.3), (-0.1, 1.12)])
        _cloth(canvas, frame, person, tie, person.trim)
        canvas.outline(frame([(-0.1, 1.12), (0.1, 1.12)]), person.line * frame.unit, line_of(person.trim))


def _hoodie(canvas: Canvas, frame: Frame, person: Character) -> None:
    body = _cloth(canvas, frame, person, _neckline(person, 1.05), person.cloth)
    _arms(canvas, frame, person, person.cloth, body)
    for side in (-1, 1):
        hood = mirrored(
            np.vstack(
                [
                    spline([(0.3, 0.3), (0.34, 0.75), (0.0, 1.2)]),
                    spline([(0.1, 1.4), (0.62, 1.2), (1.0, 0.75), (0.9, 0.35), (0.55, 0.15)]),
                ]
            ),
            side,
        )
        _cloth(canvas, frame, person, hood, mixed(person.cloth, shadow_of(person.cloth), 0.25))
        cord = mirrored(spline([(0.24, 1.15), (0.26, 1.6), (0.22, 2.1)]), side)
        canvas.outline(frame(cord), 0.06 * frame.unit, mixed(person.trim, WHITE, 0.4))
        canvas.fill(frame(ellipse((0.22 * side, 2.14), 0.06, 0.1)), line_of(person.trim, 0.6))
    zipper = frame([(0.0, 1.35), (0.0, BOTTOM)])
    canvas.outline(zipper, person.line * frame.unit, line_of(person.cloth))


def _sweater(canvas: Canvas, frame: Frame, person: Character) -> None:
    body = _cloth(canvas, frame, person, _shoulders(person), person.cloth)
    _arms(canvas, frame, person, person.cloth, body)
    neck = _both(spline([(0.0, 0.22), (0.3, 0.18), (0.46, 0.1), (0.52, 0.4), (0.62, 0.66), (0.3, 0.78), (0.0, 0.8)]))
    _cloth(canvas, frame, person, neck, person.cloth)
    ink = mixed(line_of(person.cloth), person.cloth, 0.4)
    for x in np.linspace(-0.42, 0.42, 6):
        canvas.stroke(frame(arc((x, 0.28), (x * 1.1, 0.5), (x * 1.2, 0.72))), 0.025 * frame.unit, ink)
    if person.seed % 3 == 0:
        for k in range(3):
            band = ribbon_of(arc((-2.4, 2.0 + k), (0.0, 2.25 + k), (2.4, 2.0 + k)), [0.3, 0.3])
            canvas.paint(body.inside(frame(band)), person.trim)


def _dress(canvas: Canvas, frame: Frame, person: Character) -> None:
    half = spline(
        [(0.0, 1.62), (0.5, 1.4), (0.92, 1.08), (1.2, 1.55), (1.12, 2.4), (0.98, 3.4), (1.5, 6.0), (1.7, BOTTOM)]
    )
    arms = spline(
        [
            (0.8, 0.64),
            (1.34, 0.82),
            (1.58, 1.2),
            (1.66, 2.2),
            (1.6, 3.6),
            (1.5, BOTTOM),
            (1.0, BOTTOM),
            (1.16, 2.4),
            (0.9, 1.6),
        ],
        closed=True,
    )
    for side in (-1, 1):
        _cloth(canvas, frame, person, mirrored(arms, side), person.skin_rgb)
    chest = _both(spline([(0.0, 0.6), (0.7, 0.68), (1.2, 0.86), (1.1, 2.0), (0.0, 2.6)]))
    canvas.paint(canvas.region(frame(chest)), person.skin_rgb)
    for side in (-1, 1):
        bone = mirrored(arc((0.14, 0.8), (0.4, 0.73), (0.9, 0.8)), side)
        canvas.stroke(frame(bone), 0.035 * frame.unit, shadow_of(person.skin_rgb))
        strap = mirrored(ribbon_of(arc((0.8, 0.62), (0.86, 0.9), (0.88, 1.3)), [0.14, 0.14]), side)
        _cloth(canvas, frame, person, strap, person.cloth)
    _cloth(canvas, frame, person, _both(half), person.cloth)
    frill = []
    for k, x in enumerate(np.linspace(-0.94, 0.94, 9)):
        frill.append((x, 1.62 - 0.55 * abs(x) + (0.16 if k % 2 else 0.3)))
    edge = np.vstack([spline(frill), [(0.94, 1.04)], spline([(0.5, 1.36), (0.0, 1.56), (-0.5, 1.36)]), [(-0.94, 1.04)]])
    _cloth(canvas, frame, person, edge, mixed(person.trim, WHITE, 0.55))
    if person.seed % 2:
        _bow(canvas, frame, person, (0.0, 1.95), 0.5, person.trim)
    choker = ribbon_of(arc((-0.35, 0.1), (0.0, 0.3), (0.35, 0.1)), [0.11, 0.11])
    if person.seed % 5 < 2:
        _cloth(canvas, frame, person, choker, person.trim)


def _kimono(canvas: Canvas, frame: Frame, person: Character) -> None:
    body = _cloth(canvas, frame, person, _neckline(person, 1.5), person.cloth)
    rng = np.random.default_rng(person.seed + 2)
    for _ in range(16):
        centre = (rng.uniform(-1.9, 1.9), rng.uniform(1.2, 5.5))
        for k in range(5):
            angle = 2 * np.pi * k / 5
            petal = ellipse((centre[0] + 0.13 * np.cos(angle), centre[1] + 0.13 * np.sin(angle)), 0.12, 0.09, 14, angle)
            canvas.paint(body.inside(frame(petal)), mixed(person.trim, WHITE, 0.35))
        canvas.paint(body.inside(frame(ellipse(centre, 0.06, 0.06, 12))), (250, 226, 140))
    _arms(canvas, frame, person, person.cloth, body)
    for side, over in ((-1, 2.6), (1, 3.2)):
        lapel = spline([(0.44 * side, 0.34), (0.3 * side, 0.9), (-0.12 * side, 1.7), (-0.5 * side, over)])
        _cloth(canvas, frame, person, ribbon_of(lapel, [0.28, 0.32, 0.34, 0.34]), mixed(person.trim, WHITE, 0.25))
    sash = np.vstack([arc((-1.1, 3.05), (0.0, 3.2), (1.1, 3.05)), arc((1.12, 4.3), (0.0, 4.45), (-1.12, 4.3))])
    _cloth(canvas, frame, person, sash, person.trim)
    cord = ribbon_of(arc((-1.1, 3.62), (0.0, 3.78), (1.1, 3.62)), [0.16, 0.16])
    _cloth(canvas, frame, person, cord, mixed(person.cloth, WHITE, 0.6))


def _jacket(canvas: Canvas, frame: Frame, person: Character) -> None:
    shirt = mixed(person.trim, WHITE, 0.7)
    _cloth(canvas, frame, person, _neckline(person, 0.9), shirt)
    for side in (-1, 1):
        flap = mirrored(np.array([(0.34, 0.28), (0.0, 0.9), (0.3, 1.2), (0.66, 0.6)]), side)
        _cloth(canvas, frame, person, flap, WHITE)
    knot = np.array([(-0.12, 0.86), (0.12, 0.86), (0.1, 1.1), (0.2, 2.6), (-0.2, 2.6), (-0.1, 1.1)])
    _cloth(canvas, frame, person, knot, person.trim)
    outer = _shoulders(person)
    body = _cloth(
        canvas,
        frame,
        person,
        np.vstack([outer, [(-0.4, 0.42), (-0.5, 1.2), (0.0, 2.6), (0.5, 1.2), (0.4, 0.42)]]),
        person.cloth,
    )
    _arms(canvas, frame, person, person.cloth, body)
    canvas.outline(frame([(0.0, 2.6), (0.03, BOTTOM)]), person.line * frame.unit, line_of(person.cloth))
    for side in (-1, 1):
        lapel = mirrored(
            np.array([(0.4, 0.4), (0.74, 0.58), (0.95, 1.35), (0.68, 1.42), (0.76, 1.62), (0.02, 2.62), (0.42, 1.2)]),
            side,
        )
        _cloth(canvas, frame, person, lapel, mixed(person.cloth, WHITE, 0.1))


OUTFIT_DRAWERS: dict[str, Callable[[Canvas, Frame, Character], None]] = {
    "serafuku": _serafuku,
    "collared_shirt": _collared_shirt,
    "hoodie": _hoodie,
    "sweater": _sweater,
    "dress": _dress,
    "kimono": _kimono,
    "jacket": _jacket,
}


def draw_body(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Neck and outfit; `frame` is the body's, with its origin at the chin."""
    draw_neck(canvas, frame, person)
    OUTFIT_DRAWERS[person.outfit](canvas, frame, person)
