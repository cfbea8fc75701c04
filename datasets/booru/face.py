"""The face: skin, ears, eyes, brows, nose, mouth, blush.

Face units: the origin lies between the eyes, the face is two units wide, the chin about 1.2 below.
A turned head is drawn by sliding the features towards one side and narrowing what lies on the far side.
"""

from collections.abc import Callable

import numpy as np

from datasets.booru.canvas import Canvas, Region, Rgb
from datasets.booru.character import Character
from datasets.booru.curves import Frame, Points, arc, ellipse, mirrored, moved, spline
from datasets.booru.palette import clipped, light_of, line_of, mixed, shadow_of, shifted

CHIN = 1.2
WHITE: Rgb = (255, 255, 255)


def slide(points: Points, turn: float, depth: float) -> Points:
    """Move features with the turn of the head; `depth` is 1 on the surface of the cheeks, more for what sticks out."""
    x, y = points[:, 0], points[:, 1]
    far = np.sign(x) == np.sign(turn)
    x = np.where(far, x * (1 - 0.13 * abs(turn)), x * (1 - 0.03 * abs(turn)))
    return np.stack([x + 0.17 * turn * depth, y], axis=1)


def outline(person: Character) -> Points:
    """The skin of the face as a closed shape, forehead included."""
    jaw = person.jaw
    half = np.array(
        [
            (0.99, -0.50),
            (1.0, -0.12),
            (0.965, 0.25),
            (0.86 - 0.03 * jaw, 0.58),
            (0.61 - 0.06 * jaw, 0.89),
            (0.28 - 0.09 * jaw, 1.11 + 0.01 * jaw),
        ]
    )
    if person.gender == "boy":
        half = half * (0.99, 1.05)
    chin = np.array([[0.0, half[-1, 1] + 0.075]])
    right = np.vstack([spline(np.vstack([half, chin]))])
    low = np.clip((right[:, 1] + 0.1) / 1.2, 0, 1)
    squeeze = 0.09 * abs(person.turn)
    far, near = right.copy(), right.copy()
    far[:, 0] *= 1 - squeeze
    shift = 0.11 * person.turn * low
    sides = (far, mirrored(near, -1)) if person.turn >= 0 else (near, mirrored(far, -1))
    lower = np.vstack([sides[0] + np.stack([shift, 0 * shift], 1), (sides[1] + np.stack([shift, 0 * shift], 1))[::-1]])
    forehead = spline([lower[-1], (-0.8, -1.05), (0.0, -1.35), (0.8, -1.05), lower[0]])
    return np.vstack([lower, forehead])


def draw_ears(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Both ears, behind the face; most hair styles cover them later."""
    ink = line_of(person.skin_rgb, 0.5)
    for side in (-1, 1):
        if side == np.sign(person.turn) and abs(person.turn) > 0.55:
            continue
        shape = spline([(0.93, -0.18), (1.12, -0.26), (1.2, -0.08), (1.12, 0.2), (0.98, 0.38), (0.9, 0.3)], closed=True)
        shape = frame(mirrored(shape, side))
        canvas.fill(shape, person.skin_rgb)
        canvas.outline(shape, person.line * frame.unit * 0.8, ink, closed=True)
        inner = frame(mirrored(spline([(1.0, -0.08), (1.1, -0.1), (1.06, 0.12), (0.99, 0.2)], closed=True), side))
        canvas.fill(inner, shadow_of(person.skin_rgb))


def draw_skin(canvas: Canvas, frame: Frame, person: Character) -> Region:
    """The face's skin with its side shadow and blush. Returns its region, to be shadowed by the hair later."""
    shape = frame(outline(person))
    region = canvas.region(shape)
    canvas.fill(shape, person.skin_rgb)
    shadow = shadow_of(person.skin_rgb)
    soft = person.shading in ("soft", "painted")
    if person.shading != "flat":
        away = frame.unit * -person.light * 0.13
        rim = region.outside(moved(shape, -away, -0.05 * frame.unit))
        rim = rim.blurred(0.07 * frame.unit, region) if soft else rim
        canvas.paint(rim, shadow, 0.75)
    if soft:
        chin_light = region.inside(frame(ellipse((0.0, 0.4), 0.7, 0.5)), 0.5 * frame.unit).blurred(
            0.16 * frame.unit, region
        )
        canvas.paint(chin_light, mixed(person.skin_rgb, WHITE, 0.5), 0.35)
    if person.blush:
        _blush(canvas, frame, person, region)
    ink = line_of(person.skin_rgb, 0.42)
    lower = frame(outline(person)[:-33])
    canvas.stroke(lower, person.line * 1.15 * frame.unit, ink, (0.5, 1.0, 1.1, 0.7, 1.1, 1.0, 0.5))
    return region


def _blush(canvas: Canvas, frame: Frame, person: Character, skin: Region) -> None:
    pink = mixed(person.skin_rgb, (250, 96, 110), 0.55)
    for side in (-1, 1):
        centre = slide(np.array([[0.58 * side, 0.47]]), person.turn, 1.0)[0]
        spot = canvas.region(frame(ellipse(centre, 0.26, 0.12)), margin=int(0.25 * frame.unit))
        canvas.paint(spot.blurred(0.075 * frame.unit), pink, 0.6)
        if person.seed % 3 == 0:
            for k in (-1, 0, 1):
                line = [moved(centre, 0.09 * k + 0.03, -0.06), moved(centre, 0.09 * k - 0.03, 0.05)]
                canvas.outline(frame(line), 0.022 * frame.unit, shifted(pink, 0, 1.4, 0.9))


# ---- eyes ------------------------------------------------------------------------------------------------------------


def _lids(person: Character) -> tuple[Points, Points]:
    """Upper and lower lid of one eye round its own centre, inner corner at x < 0, as the expression opens them."""
    size = person.eye_size
    slant = {"almond": 0.05, "drooping": -0.045, "round": 0.0}[person.eye_shape]
    slant += {"angry": 0.05, "sad": -0.04}.get(person.expression, 0.0)
    opening = {"surprised": 1.1, "smirk": 0.84, "angry": 0.9, "sad": 0.94, "grin": 0.95}.get(person.expression, 1.0)
    tall = {"almond": 0.25, "drooping": 0.27, "round": 0.285}[person.eye_shape]
    top, low = tall * opening * size, 0.245 * size
    if person.gender == "boy":
        top, low = top * 0.82, low * 0.8
    w = 0.31 * size
    inner, outer = (-w, 0.02 + slant), (w * 1.02, -0.05 - slant)
    upper = spline(
        [
            inner,
            (-w * 0.72, -top * 0.66 + slant * 0.6),
            (-w * 0.2, -top),
            (w * 0.4, -top * 0.98 - slant * 0.6),
            (w * 0.86, -top * 0.6 - slant),
            outer,
        ]
    )
    lower = spline(
        [outer, (w * 0.76, low * 0.62), (w * 0.25, low), (-w * 0.4, low * 0.96), (-w * 0.8, low * 0.56), inner]
    )
    return upper, lower


def _closed_eye(canvas: Canvas, place: "EyePlace", person: Character) -> None:
    width = 0.3 * person.eye_size
    path = (
        arc((-width, 0.06), (0.0, -0.2), (width, 0.06))
        if person.expression != "one_eye_closed"
        else arc((-width, -0.02), (0.0, 0.18), (width, -0.06))
    )
    canvas.stroke(place(path), 0.085 * place.frame.unit, (58, 34, 44), (0.3, 1.0, 1.1, 1.0, 0.4))
    for dx, dy in ((0.05, 0.06), (0.09, 0.0)):
        tip = arc((width * 0.85, 0.0), (width + dx * 0.5, dy), (width + dx, dy - 0.03))
        canvas.stroke(place(tip), 0.035 * place.frame.unit, (58, 34, 44))


class EyePlace:
    """Maps one eye's own coordinates (outer corner at x > 0) to canvas pixels."""

    def __init__(self, frame: Frame, person: Character, side: int) -> None:
        self.frame, self.side, self.person = frame, side, person
        self.centre = np.array([0.5 * side, 0.03])

    def __call__(self, points: Points) -> Points:
        return self.frame(slide(mirrored(points, self.side) + self.centre, self.person.turn, 1.0))

    def unmirrored(self, points: Points) -> Points:
        return self.frame(slide(points + self.centre, self.person.turn, 1.0))


def draw_eyes(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Both eyes with lashes, and what closed ones leave."""
    for side in (-1, 1):
        place = EyePlace(frame, person, side)
        wink = person.expression == "one_eye_closed" and side == (1 if person.seed % 2 else -1)
        if wink or person.expression == "closed_eyes":
            _closed_eye(canvas, place, person)
        else:
            _open_eye(canvas, place, person)


def _open_eye(canvas: Canvas, place: EyePlace, person: Character) -> None:
    unit, size = place.frame.unit, person.eye_size
    upper, lower = _lids(person)
    opening = canvas.region(place(np.vstack([upper, lower])))
    canvas.paint(opening, (252, 252, 255))
    canvas.shade(opening.outside(place(moved(np.vstack([upper, lower]), 0.0, 0.11 * size))), (196, 192, 222))
    _iris(canvas, place, person, opening)
    ink = mixed(line_of(person.hair, 0.3), (40, 22, 34), 0.55)
    lash = np.vstack([upper[3:], [moved(upper[-1], 0.05, -0.03)]])
    thick = 0.11 if person.gender == "girl" else 0.085
    canvas.stroke(
        place(moved(lash, 0.0, -0.015)), thick * unit * size, ink, (0.06, 0.2, 0.62, 0.95, 1.1, 1.15, 1.05, 0.3)
    )
    if person.gender == "girl":
        for start, dx, dy in ((0.97, 0.14, -0.08), (0.88, 0.13, -0.14)):
            root = upper[int(start * (len(upper) - 1))]
            tip = arc(root, moved(root, dx * 0.7, dy * 0.3), moved(root, dx, dy))
            canvas.stroke(place(tip), 0.06 * unit, ink, (1.0, 0.7, 0.1))
    canvas.stroke(place(lower[2:22]), 0.04 * unit, mixed(ink, person.skin_rgb, 0.2), (0.9, 0.7, 0.15))
    fold = spline(upper[6:-4:6] * (0.94, 1.0) + (0.015, -0.115))
    canvas.stroke(place(fold), 0.026 * unit, line_of(person.skin_rgb, 0.5), (0.2, 0.9, 1.0, 0.3))


def _iris(canvas: Canvas, place: EyePlace, person: Character, opening: Region) -> None:
    unit, size = place.frame.unit, person.eye_size
    wide, tall = 0.215 * size, 0.275 * size
    if person.expression == "surprised":
        wide, tall = wide * 0.8, tall * 0.8
    if person.gender == "boy":
        wide, tall = wide * 0.9, tall * 0.86
    centre = np.array([0.015 * place.side + 0.02 * person.turn, -0.02 * size])
    base = person.eye
    dark, rim = shifted(base, -0.02, 1.1, 0.42), shifted(base, -0.03, 1.1, 0.32)
    shape = place.unmirrored(ellipse(centre, wide, tall))
    iris = opening.inside(shape)
    top, bottom = shape[:, 1].min(), shape[:, 1].max()
    canvas.gradient(iris, dark, mixed(base, WHITE, 0.12), float(top), float(bottom))
    glow = iris.inside(place.unmirrored(ellipse(moved(centre, 0, tall * 0.62), wide * 0.82, tall * 0.36)), 0.1 * unit)
    canvas.paint(glow.blurred(0.03 * unit, iris), light_of(base), 0.85)
    canvas.paint(iris.outside(place.unmirrored(ellipse(centre, wide - 0.03, tall - 0.03))), rim)
    canvas.paint(
        iris.inside(place.unmirrored(ellipse(moved(centre, 0, -0.01), wide * 0.42, tall * 0.46))),
        mixed(rim, (12, 6, 20), 0.5),
    )
    if person.shading != "flat":
        canvas.shade(
            iris.outside(place.unmirrored(ellipse(moved(centre, 0, tall * 0.75), wide * 1.6, tall * 1.25))),
            (120, 104, 140),
        )
    spark = -person.light
    big = ellipse(moved(centre, -0.085 * spark * size, -0.12 * size), 0.07 * size, 0.09 * size, angle=0.35 * spark)
    small = ellipse(moved(centre, 0.085 * spark * size, 0.12 * size), 0.037 * size, 0.045 * size)
    canvas.fill(place.unmirrored(big), WHITE)
    canvas.fill(place.unmirrored(small), clipped(mixed(WHITE, base, 0.08)))


def draw_brows(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Eyebrows; drawn over the bangs, as is the custom."""
    slope, lift = {
        "angry": (0.13, 0.09),
        "sad": (-0.12, -0.02),
        "surprised": (-0.02, -0.1),
        "smirk": (0.05, 0.02),
        "grin": (0.06, 0.0),
    }.get(person.expression, (0.0, 0.0))
    ink = mixed(line_of(person.hair, 0.45), person.hair, 0.12)
    top = -0.49 * (0.5 + 0.5 * person.eye_size) + lift
    thick = 0.06 if person.gender == "girl" else 0.085
    for side in (-1, 1):
        path = arc((0.24, top + slope), (0.5, top - 0.1 + 0.2 * slope), (0.78, top + 0.04 - slope))
        place = slide(mirrored(path, side), person.turn, 1.0)
        canvas.stroke(frame(place), thick * frame.unit, ink, (0.7, 1.0, 0.8, 0.2))


# ---- nose and mouth --------------------------------------------------------------------------------------------------


def draw_nose(canvas: Canvas, frame: Frame, person: Character) -> None:
    """A small stroke and a dot of light."""
    ink = line_of(person.skin_rgb, 0.55)
    lean = person.turn if abs(person.turn) > 0.15 else 0.15 * person.light
    tip = slide(np.array([[0.0, 0.5]]), person.turn, 1.35)[0]
    path = arc(moved(tip, 0.03 * np.sign(lean), -0.09), moved(tip, 0.06 * np.sign(lean), -0.01), tip)
    canvas.stroke(frame(path), 0.032 * frame.unit, ink, (0.1, 0.8, 1.0))
    if person.shading != "flat":
        canvas.fill(
            frame(ellipse(moved(tip, -0.03 * np.sign(lean), -0.07), 0.02, 0.03)), mixed(person.skin_rgb, WHITE, 0.7)
        )


def draw_mouth(canvas: Canvas, frame: Frame, person: Character) -> None:
    """The mouth of the person's expression."""
    kind = person.expression
    ink = line_of(person.skin_rgb, 0.36)
    centre = np.array([0.0, 0.83])
    width = 0.2 + 0.05 * ((person.seed >> 3) % 5) / 4

    def place(points: object) -> Points:
        return frame(slide(np.asarray(points, dtype=np.float64).reshape(-1, 2) + centre, person.turn, 1.15))

    if kind in ("open_mouth", "grin", "surprised", "one_eye_closed", "closed_eyes"):
        _open_mouth(canvas, frame, place, kind, width, ink)
        return
    path = {
        "smile": arc((-width, -0.03), (0.0, 0.11), (width, -0.03)),
        "neutral": arc((-width * 0.6, 0.0), (0.0, 0.02), (width * 0.6, 0.0)),
        "sad": arc((-width * 0.7, 0.04), (0.0, -0.07), (width * 0.7, 0.04)),
        "angry": arc((-width * 0.7, 0.05), (0.0, -0.06), (width * 0.7, 0.03)),
        "smirk": arc((-width * 0.7, 0.03), (0.05, 0.08), (width, -0.06)),
        "cat_mouth": np.vstack(
            [
                arc((-width, -0.04), (-width * 0.5, 0.12), (0, -0.01)),
                arc((0, -0.01), (width * 0.5, 0.12), (width, -0.04)),
            ]
        ),
    }[kind]
    canvas.stroke(place(path), 0.042 * frame.unit, ink, (0.35, 0.9, 1.0, 0.9, 0.35))
    if kind != "cat_mouth":
        under = arc((-0.05, 0.12), (0.0, 0.135), (0.05, 0.12))
        canvas.stroke(place(under), 0.022 * frame.unit, shadow_of(person.skin_rgb))


def _open_mouth(
    canvas: Canvas, frame: Frame, place: Callable[[object], Points], kind: str, width: float, ink: Rgb
) -> None:
    if kind == "surprised":
        shape = ellipse((0, 0.03), 0.085, 0.12)
    elif kind == "grin":
        top = arc((-width * 1.1, -0.05), (0, 0.03), (width * 1.1, -0.05))
        shape = np.vstack([top, arc((width * 1.1, -0.05), (0, 0.26), (-width * 1.1, -0.05))])
    else:
        deep = 0.3 + 0.3 * width
        top = arc((-width, -0.06), (0, -0.0), (width, -0.06))
        shape = np.vstack(
            [
                top,
                spline(
                    [
                        (width, -0.06),
                        (width * 0.72, deep * 0.36),
                        (0, deep * 0.56),
                        (-width * 0.72, deep * 0.36),
                        (-width, -0.06),
                    ]
                ),
            ]
        )
    region = canvas.region(place(shape))
    canvas.paint(region, (146, 52, 58))
    canvas.paint(region.inside(place(ellipse((0, 0.17), width * 0.66, 0.1))), (238, 128, 126))
    if kind != "surprised":
        teeth = region.inside(
            place([(-1, -1), (1, -1), (1, 0.005 if kind != "grin" else 0.05), (-1, 0.005 if kind != "grin" else 0.05)])
        )
        canvas.paint(teeth, (255, 250, 246))
    canvas.outline(place(shape), 0.032 * frame.unit, ink, closed=True)
