"""A whole picture: who is in it, how large, where, before what; and where the faces are."""

from dataclasses import dataclass, replace

import numpy as np

from datasets.booru.accessories import draw_accessory, draw_accessory_behind, draw_hair_ties
from datasets.booru.background import BACKGROUNDS
from datasets.booru.canvas import SUPERSAMPLE, Canvas, Pixels
from datasets.booru.character import Character, choose, sample_character
from datasets.booru.costume import draw_body
from datasets.booru.curves import Frame
from datasets.booru.face import CHIN, draw_brows, draw_ears, draw_eyes, draw_mouth, draw_nose, draw_skin
from datasets.booru.fringe import draw_front
from datasets.booru.hair import draw_ahoge, draw_behind, draw_braids

FACE_SIDE = 2.2  # face units: side of the true box, about what face detectors answer
FACE_CENTRE = 0.31  # face units below the eyes: middle of the true box


@dataclass(frozen=True)
class Face:
    """One true face, in pixels of the picture from its top left."""

    x: float
    y: float
    side: float
    person: Character
    number: int = 0  # from left to right in the picture first drawn; copies keep it


@dataclass(frozen=True)
class Picture:
    """Pixels (uint8 RGB, height x width x 3) and what is true of them."""

    pixels: Pixels
    faces: tuple[Face, ...]
    background: str
    backdrop: Pixels  # the background alone, of the same shape


def draw_person(canvas: Canvas, frame: Frame, person: Character) -> None:
    """One person, back to front; `frame` is that of the head, in canvas pixels."""
    chin = frame.at((0.09 * person.turn, CHIN - 0.06))
    body = Frame(chin.x, chin.y, frame.unit, frame.roll * 0.15)
    draw_accessory_behind(canvas, frame, person)
    draw_behind(canvas, frame, person)
    draw_body(canvas, body, person)
    draw_braids(canvas, frame, person)
    draw_ears(canvas, frame, person)
    skin = draw_skin(canvas, frame, person)
    draw_nose(canvas, frame, person)
    draw_mouth(canvas, frame, person)
    draw_eyes(canvas, frame, person)
    draw_front(canvas, frame, person, skin)
    draw_brows(canvas, frame, person)
    draw_hair_ties(canvas, frame, person)
    draw_accessory(canvas, frame, person)
    draw_ahoge(canvas, frame, person)


def face_of(frame: Frame, person: Character) -> Face:
    """The true box of a head drawn at `frame` (canvas pixels), in picture pixels."""
    cx, cy = frame([(0.08 * person.turn, FACE_CENTRE)])[0] / SUPERSAMPLE
    side = FACE_SIDE * frame.unit / SUPERSAMPLE
    return Face(float(cx - side / 2), float(cy - side / 2), float(side), person)


def draw_background(width: int, height: int, rng: np.random.Generator) -> tuple[Pixels, str]:
    """A random background and its name."""
    name = choose(rng, {k: int(v[0]) for k, v in BACKGROUNDS.items()})
    return BACKGROUNDS[name][1](width, height, rng), name


def picture_size(rng: np.random.Generator, people: int) -> tuple[int, int]:
    """Width and height in pixels; wider for more people."""
    long = int(rng.integers(500, 1101)) if rng.random() < 0.85 else int(rng.integers(1100, 1401))
    if people == 1:
        short = int(long * rng.choice([0.71, 0.75, 0.8, 1.0], p=[0.4, 0.2, 0.25, 0.15]))
        return (short, long) if rng.random() < 0.85 else (long, short)
    short = int(long * rng.choice([0.62, 0.71, 0.8]))
    return long, short


def place_heads(width: int, height: int, people: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Eye-line middle and face width (picture pixels) of each person, left to right."""
    share = width / people
    limit = min(share / (1.55 if people == 1 else 1.7), height / 2.2, 382.0)
    heads = []
    base = float(np.clip(limit * rng.uniform(0.5, 1.0), 92.0, 380.0))
    for k in range(people):
        size = float(np.clip(base * rng.uniform(0.88, 1.08), 90.0, min(limit * 1.02, 382.0)))
        x = share * (k + 0.5) + rng.uniform(-0.06, 0.06) * share
        lowest = height - 1.25 * size
        y = float(np.clip(height * rng.uniform(0.34, 0.5), 1.05 * size, max(1.05 * size, lowest)))
        y = max(y, height - 4.5 * size)
        heads.append((x, y, size))
    return heads


def draw_picture(rng: np.random.Generator, people: int) -> Picture:
    """A picture of `people` (1 to 3) persons."""
    width, height = picture_size(rng, people)
    backdrop, background = draw_background(width, height, rng)
    canvas = Canvas(backdrop)
    faces = []
    heads = place_heads(width, height, people, rng)
    for k in np.argsort([h[2] for h in heads], kind="stable"):
        x, y, size = heads[int(k)]
        person = sample_character(rng)
        frame = Frame(x * SUPERSAMPLE, y * SUPERSAMPLE, size * SUPERSAMPLE / 2, float(np.deg2rad(person.roll)))
        draw_person(canvas, frame, person)
        faces.append(face_of(frame, person))
    faces.sort(key=lambda face: (face.x, face.y))
    numbered = tuple(replace(face, number=k) for k, face in enumerate(faces))
    return Picture(canvas.finished(), numbered, background, backdrop)
