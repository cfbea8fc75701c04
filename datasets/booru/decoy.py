"""Pictures without a person: landscapes and still lifes, and things with two round spots that fool face detectors."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from datasets.booru.background import BACKGROUNDS, night, pattern, simple, sky, sunset
from datasets.booru.canvas import SUPERSAMPLE, Canvas, Pixels, Rgb
from datasets.booru.character import sample_character
from datasets.booru.costume import draw_neck
from datasets.booru.curves import Frame, arc, ellipse, mirrored, ribbon_of, spline
from datasets.booru.face import draw_skin
from datasets.booru.fringe import draw_front
from datasets.booru.hair import draw_behind
from datasets.booru.palette import CLOTH, jittered, line_of, mixed, shadow_of

WHITE: Rgb = (255, 255, 255)
INK: Rgb = (56, 40, 48)


def _colour(rng: np.random.Generator) -> Rgb:
    return jittered(CLOTH[str(rng.choice(["red", "pink", "yellow", "green", "blue", "purple", "brown", "aqua"]))], rng)


def _shape(canvas: Canvas, frame: Frame, points: np.ndarray, colour: Rgb) -> None:
    placed = frame(points)
    region = canvas.region(placed)
    canvas.paint(region, colour)
    canvas.shade(region.outside(placed - (0.12 * frame.unit, 0.1 * frame.unit)), (206, 196, 222))
    canvas.outline(placed, 0.03 * frame.unit, line_of(colour), closed=True)


def _tree(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    _shape(canvas, frame, np.array([(-0.16, 0.4), (0.16, 0.4), (0.22, 2.0), (-0.22, 2.0)]), (128, 92, 72))
    green = jittered((104, 172, 104), rng, 2.0)
    for _ in range(9):
        centre = (rng.uniform(-0.6, 0.6), rng.uniform(-0.8, 0.5))
        _shape(canvas, frame, ellipse(centre, 0.5, 0.42), green)


def _cup(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    colour = _colour(rng)
    canvas.outline(
        frame(spline([(0.8, -0.4), (1.3, -0.3), (1.3, 0.35), (0.75, 0.5)])), 0.16 * frame.unit, shadow_of(colour)
    )
    _shape(canvas, frame, np.array([(-0.9, -0.7), (0.9, -0.7), (0.72, 0.9), (-0.72, 0.9)]), colour)
    _shape(canvas, frame, ellipse((0, -0.7), 0.9, 0.22), (118, 76, 56))


def _flower(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    canvas.outline(frame(spline([(0, 0.3), (0.1, 1.2), (0.0, 2.4)])), 0.09 * frame.unit, (96, 150, 96))
    colour = _colour(rng)
    n = int(rng.integers(5, 9))
    for k in range(n):
        angle = 2 * np.pi * k / n
        _shape(canvas, frame, ellipse((0.55 * np.cos(angle), 0.55 * np.sin(angle)), 0.45, 0.24, angle=angle), colour)
    _shape(canvas, frame, ellipse((0, 0), 0.28, 0.28), (246, 210, 96))


def _fruit(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    _shape(
        canvas,
        frame,
        spline(
            [(0, -0.7), (0.7, -0.85), (0.95, 0.0), (0.45, 0.9), (0, 0.8), (-0.45, 0.9), (-0.95, 0.0), (-0.7, -0.85)],
            closed=True,
        ),
        _colour(rng),
    )
    canvas.stroke(frame(arc((0, -0.7), (0.05, -1.0), (0.2, -1.2))), 0.1 * frame.unit, (110, 78, 58))
    _shape(canvas, frame, spline([(0.15, -1.0), (0.5, -1.3), (0.9, -1.1), (0.5, -0.95)], closed=True), (116, 178, 104))


def draw_still(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """A landscape or a still life: nothing in it looks back."""
    maker = (sky, sunset, night, simple)[int(rng.integers(4))]
    canvas = Canvas(maker(width, height, rng))
    things = (_tree,) if maker in (sky, sunset, night) else (_cup, _flower, _fruit)
    for _ in range(int(rng.integers(2, 5))):
        unit = min(width, height) * rng.uniform(0.06, 0.14) * SUPERSAMPLE
        place = Frame(rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.55, 0.85) * canvas.height, unit)
        things[int(rng.integers(len(things)))](canvas, place, rng)
    return canvas.finished()


# ---- things that fool a detector -------------------------------------------------------------------------------------


def _plush(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A stuffed bear with button eyes."""
    fur = mixed(_colour(rng), (220, 190, 160), 0.5)
    for side in (-1, 1):
        _shape(canvas, frame, ellipse((0.8 * side, -0.95), 0.36, 0.36), fur)
        _shape(canvas, frame, ellipse((0.8 * side, -0.95), 0.19, 0.19), mixed(fur, WHITE, 0.5))
    _shape(canvas, frame, ellipse((0, 2.1), 1.0, 1.2), fur)
    _shape(canvas, frame, ellipse((0, 0), 1.2, 1.1), fur)
    _shape(canvas, frame, ellipse((0, 0.45), 0.5, 0.38), mixed(fur, WHITE, 0.6))
    canvas.fill(frame(ellipse((0, 0.28), 0.16, 0.11)), INK)
    for side in (-1, 1):
        canvas.fill(frame(ellipse((0.48 * side, -0.05), 0.15, 0.18)), INK)
        canvas.fill(frame(ellipse((0.48 * side - 0.05, -0.12), 0.05, 0.06)), WHITE)


def _owl(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """An owl: two huge ringed eyes under a dark brow."""
    feather = _colour(rng)
    body = spline(
        [
            (0, -1.3),
            (0.9, -1.1),
            (1.3, -1.5),
            (1.25, 0.2),
            (1.1, 2.0),
            (0, 2.6),
            (-1.1, 2.0),
            (-1.25, 0.2),
            (-1.3, -1.5),
            (-0.9, -1.1),
        ],
        closed=True,
    )
    _shape(canvas, frame, body, feather)
    for j in range(4):
        for x in np.linspace(-0.7, 0.7, 5):
            canvas.stroke(
                frame(arc((x - 0.12, 1.0 + 0.35 * j), (x, 1.2 + 0.35 * j), (x + 0.12, 1.0 + 0.35 * j))),
                0.05 * frame.unit,
                line_of(feather),
            )
    for side in (-1, 1):
        _shape(canvas, frame, ellipse((0.52 * side, -0.3), 0.5, 0.5), mixed(feather, WHITE, 0.75))
        _shape(canvas, frame, ellipse((0.52 * side, -0.3), 0.3, 0.3), (250, 206, 84))
        canvas.fill(frame(ellipse((0.52 * side, -0.3), 0.19, 0.19)), INK)
        canvas.fill(frame(ellipse((0.52 * side - 0.07, -0.38), 0.07, 0.07)), WHITE)
        canvas.stroke(
            frame(mirrored(arc((0.05, -0.55), (0.6, -1.0), (1.25, -0.95)), side)), 0.2 * frame.unit, line_of(feather)
        )
    _shape(canvas, frame, np.array([(-0.14, -0.02), (0.14, -0.02), (0.0, 0.36)]), (240, 170, 70))


def _butterfly(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Eye spots on wings."""
    colour, spot = _colour(rng), _colour(rng)
    for side in (-1, 1):
        low = spline([(0.05, 0.1), (0.7, 0.3), (1.0, 0.9), (0.6, 1.3), (0.2, 0.8)], closed=True)
        high = spline([(0.05, 0.1), (0.4, -0.9), (1.3, -1.2), (1.5, -0.4), (0.9, 0.25)], closed=True)
        for wing in (low, high):
            _shape(canvas, frame, mirrored(wing, side), colour)
        for centre, size in (((0.88, -0.5), 0.34), ((0.55, 0.75), 0.2)):
            for share, tone in ((1.0, WHITE), (0.8, spot), (0.5, INK)):
                canvas.fill(frame(ellipse((centre[0] * side, centre[1]), size * share, size * share)), tone)
            canvas.fill(frame(ellipse((centre[0] * side - 0.08, centre[1] - 0.1), size * 0.2, size * 0.2)), WHITE)
    _shape(canvas, frame, ellipse((0, 0.1), 0.11, 0.75), INK)
    for side in (-1, 1):
        canvas.stroke(frame(mirrored(arc((0, -0.6), (0.2, -1.1), (0.45, -1.3)), side)), 0.05 * frame.unit, INK)


def _car(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """The front of a small car: headlamps for eyes, a grille for a mouth."""
    paint = _colour(rng)
    for side in (-1, 1):
        _shape(canvas, frame, np.array([(0.7, 0.8), (1.25, 0.8), (1.25, 1.35), (0.7, 1.35)]) * (side, 1), (60, 58, 66))
    _shape(
        canvas,
        frame,
        spline(
            [(-0.8, -1.3), (0.8, -1.3), (1.1, -0.5), (1.4, -0.1), (1.4, 1.0), (-1.4, 1.0), (-1.4, -0.1), (-1.1, -0.5)],
            closed=True,
        ),
        paint,
    )
    _shape(canvas, frame, np.array([(-0.72, -1.15), (0.72, -1.15), (0.95, -0.5), (-0.95, -0.5)]), (176, 212, 236))
    for side in (-1, 1):
        _shape(canvas, frame, ellipse((0.86 * side, 0.2), 0.32, 0.32), (236, 236, 240))
        canvas.fill(frame(ellipse((0.86 * side, 0.2), 0.2, 0.2)), (255, 240, 176))
        canvas.fill(frame(ellipse((0.86 * side - 0.08, 0.1), 0.07, 0.07)), WHITE)
    _shape(canvas, frame, ribbon_of(arc((-0.5, 0.55), (0, 0.72), (0.5, 0.55)), [0.24, 0.24]), (72, 70, 80))


def _doll(canvas: Canvas, frame: Frame, rng: np.random.Generator, buttons: bool = True) -> None:
    """A rag doll: hair and cheeks like a person's, buttons for eyes, a stitched mouth."""
    person = replace(sample_character(rng), turn=0.0, expression="smile", accessory="none")
    person = replace(person, hair_tip=person.hair, skin_rgb=jittered((236, 214, 186), rng), blush=buttons)
    draw_behind(canvas, frame, person)
    neck = frame.at((0.0, 1.1), frame.roll)
    draw_neck(canvas, neck, person)
    _shape(
        canvas,
        neck,
        spline([(0.0, 0.4), (0.9, 0.7), (1.2, 2.6), (0.0, 2.8), (-1.2, 2.6), (-0.9, 0.7)], closed=True),
        _colour(rng),
    )
    skin = draw_skin(canvas, frame, person)
    for side in (-1, 1) if buttons else ():
        _shape(canvas, frame, ellipse((0.46 * side, 0.02), 0.24, 0.26), (74, 60, 70))
        for dx, dy in ((-0.07, -0.07), (0.07, -0.07), (-0.07, 0.07), (0.07, 0.07)):
            canvas.fill(frame(ellipse((0.46 * side + dx, 0.02 + dy), 0.035, 0.035, 12)), (226, 214, 196))
    if buttons:
        canvas.stroke(frame(arc((-0.35, 0.72), (0, 0.95), (0.35, 0.72))), 0.04 * frame.unit, INK)
        for x in np.linspace(-0.26, 0.26, 5):
            canvas.stroke(frame([(x, 0.74), (x, 0.9)]), 0.03 * frame.unit, INK, (1.0, 1.0))
    draw_front(canvas, frame, person, skin)


def _mannequin(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A wig on a head without a face."""
    _doll(canvas, frame, rng, buttons=False)


DECOYS: dict[str, Callable[[Canvas, Frame, np.random.Generator], None]] = {
    "teddy_bear": _plush,
    "owl": _owl,
    "butterfly": _butterfly,
    "car": _car,
    "doll": _doll,
    "mannequin": _mannequin,
}


def draw_decoy(width: int, height: int, rng: np.random.Generator) -> tuple[Pixels, str]:
    """A picture of something face-like, and its tag."""
    maker = (simple, pattern, sky, BACKGROUNDS["gradient"][1])[int(rng.integers(4))]
    canvas = Canvas(maker(width, height, rng))
    name = str(rng.choice(list(DECOYS)))
    n = int(rng.integers(1, 3))
    for k in range(n):
        unit = min(width / n, height) * rng.uniform(0.13, 0.22) * SUPERSAMPLE
        frame = Frame(
            canvas.width * (k + 0.5) / n, canvas.height * rng.uniform(0.4, 0.55), unit, rng.uniform(-0.15, 0.15)
        )
        DECOYS[name](canvas, frame, rng)
    return canvas.finished(), name
