"""Hair before the face: the cap of hair with its bangs, the locks that frame the face, and the light on them."""

from dataclasses import replace

import cv2
import numpy as np

from datasets.booru.canvas import Canvas, Region, Rgb
from datasets.booru.character import Character
from datasets.booru.curves import Frame, Points, arc, moved, ribbon_of, spline, waved
from datasets.booru.palette import clipped, light_of, line_of, mixed, shadow_of

SHADE: Rgb = (206, 194, 222)
CAP = np.array(
    [
        (-1.17, 0.1),
        (-1.29, -0.42),
        (-1.2, -1.04),
        (-0.78, -1.52),
        (0.0, -1.72),
        (0.78, -1.52),
        (1.2, -1.04),
        (1.29, -0.42),
        (1.17, 0.1),
    ]
)
PARTING = np.array([0.0, -1.5])


def _edge_of_locks(tips: Points, valleys: Points, bow: float) -> Points:
    """An edge of pointed locks: valley, tip, valley, tip, ..., valley (one valley more than tips)."""
    parts = []
    for k, tip in enumerate(tips):
        before, after = valleys[k], valleys[k + 1]
        down, up = tip - before, after - tip
        lean = bow + 0.05 * np.sign(tip[0]) * abs(down[1])
        parts.append(arc(before, moved(before + 0.55 * down, lean - 0.13 * abs(down[1]), 0.04), tip, 8))
        parts.append(arc(tip, moved(tip + 0.42 * up, lean + 0.1 * abs(up[1]), 0.02), after, 8)[1:])
    return np.vstack(parts)


def _bangs(person: Character, rng: np.random.Generator) -> tuple[Points, Points, float]:
    """Tips, valleys and sideways bend of the bangs, from left to right."""
    kind, turn = person.bangs, person.turn
    n = {"blunt_bangs": 8, "choppy_bangs": 7, "swept_bangs": 6, "parted_bangs": 6, "hair_between_eyes": 7}[kind]
    widths = rng.uniform(0.65, 1.35, n)
    edge = -1.1 + 2.2 * np.r_[0, np.cumsum(widths)] / widths.sum()
    x = (edge[1:] + edge[:-1]) / 2 + 0.12 * turn
    share = widths / widths.mean()  # broad locks reach lower
    side = 1.0 if person.seed % 2 else -1.0
    bow = 0.0
    if kind == "blunt_bangs":
        tips = np.stack([x, -0.3 + 0.05 * x**2 + rng.normal(0, 0.02, n)], 1)
        valley = -0.42 - rng.uniform(0.06, 0.3, n + 1)
    elif kind == "choppy_bangs":
        tips = np.stack([x + rng.normal(0, 0.06, n), -0.38 + 0.13 * share + rng.uniform(-0.08, 0.05, n)], 1)
        valley = -0.72 + rng.uniform(-0.2, 0.12, n + 1)
    elif kind == "swept_bangs":
        reach = side * x
        tips = np.stack([x + 0.24 * side, -0.5 + 0.1 * share + 0.2 * reach + rng.uniform(-0.04, 0.04, n)], 1)
        valley = -0.76 + 0.14 * side * edge + rng.uniform(-0.1, 0.08, n + 1)
        bow = -0.12 * side
    elif kind == "parted_bangs":
        middle = 0.1 * side
        away = np.abs(x - middle)
        tips = np.stack([x * 1.08 + 0.14 * np.sign(x - middle), -0.66 + 0.52 * away + rng.uniform(-0.04, 0.04, n)], 1)
        valley = -1.08 + 0.5 * np.abs(edge - middle) + rng.uniform(-0.04, 0.04, n + 1)
    else:
        tips = np.stack([x + rng.normal(0, 0.04, n), -0.44 + 0.12 * share + rng.uniform(-0.06, 0.05, n)], 1)
        tips[n // 2] = (0.07 * side + 0.17 * turn, 0.2 + rng.uniform(-0.1, 0.14))
        valley = -0.76 + rng.uniform(-0.14, 0.08, n + 1)
    hairline = -1.05
    tips[:, 1] = hairline + (tips[:, 1] - hairline) * person.fringe
    for end, x_least in ((0, -0.96), (-1, 0.96)):
        tips[end] = (x_least + rng.uniform(-0.03, 0.03), rng.uniform(-0.05, 0.15))
    valleys = np.stack([edge + 0.12 * turn, valley], 1)
    valleys[0], valleys[-1] = (-1.17, 0.05), (1.17, 0.05)
    return tips, valleys, bow


def _side_locks(person: Character, rng: np.random.Generator) -> list[Points]:
    """Locks that fall from the temples and frame the face, as closed shapes."""
    reach = {"short_hair": 0.5, "bob_cut": 1.05, "medium_hair": 1.5, "long_hair": 2.3 + person.length}.get(
        person.hair_style, 1.15
    )
    if person.gender == "boy":
        reach = 0.36
    inward = 0.3 if person.hair_style == "bob_cut" else 0.06
    locks = []
    for side in (-1.0, 1.0):
        near = 1.0 - (0.07 * abs(person.turn) if side == np.sign(person.turn) else 0.0)
        for root, width, share in ((0.99, 0.34, 0.62), (1.09, 0.36, 1.0)):
            low = reach * share * rng.uniform(0.88, 1.1)
            bulge = 0.06 if low < 1.6 else 0.12
            path = [
                (root * near, -0.8),
                ((root + bulge) * near, -0.8 + 0.45 * (low + 0.8)),
                ((root + bulge * 0.6) * near, -0.8 + 0.75 * (low + 0.8)),
                ((root - inward) * near + rng.uniform(-0.05, 0.05), low),
            ]
            line = waved(spline(path) * (side, 1.0), 0.8 * person.wave)
            locks.append(ribbon_of(line, np.array([0.9, 1.0, 0.95, 0.72, 0.4, 0.02]) * width))
    return locks


def draw_front(canvas: Canvas, frame: Frame, person: Character, skin: Region) -> None:
    """Locks beside the face and bangs over it, with the shadow they throw on the skin."""
    rng = np.random.default_rng(person.seed + 1)
    tips, valleys, bow = _bangs(person, rng)
    cap = frame(np.vstack([spline(CAP), _edge_of_locks(tips, valleys, bow)[::-1]]))
    free = _side_locks(person, rng)
    locks = [frame(lock, hanging=True) for lock in free]
    if person.shading != "flat":
        _throw_shadow(canvas, frame, person, skin, cap, locks)
    mass = canvas.region(cap, *locks)
    _shade_mass(canvas, frame, person, mass, cap, locks)
    bangs = mass.inside(cap)
    if person.shading != "flat":
        for k, tip in enumerate(tips):
            _shade_lock(canvas, frame, person, bangs, valleys[k + (person.light < 0)], tip)
    _angel_ring(canvas, frame, person, bangs, rng)
    _ink(canvas, frame, person, mass, cap, free, valleys, rng)


def _throw_shadow(
    canvas: Canvas, frame: Frame, person: Character, skin: Region, cap: Points, locks: list[Points]
) -> None:
    unit = frame.unit
    thrown = replace(skin, cover=np.zeros_like(skin.cover))
    thrown = thrown.joined(skin.inside(moved(cap, person.light * -0.05 * unit, 0.11 * unit)))
    for lock in locks:
        thrown = thrown.joined(skin.inside(moved(lock, -person.light * 0.06 * unit, 0.02 * unit)))
    if person.shading in ("soft", "painted"):
        thrown = thrown.blurred(0.025 * unit, skin)
    tone = clipped(255 * np.array(shadow_of(person.skin_rgb)) / np.array(person.skin_rgb))
    canvas.shade(thrown, tone)


def _shade_mass(
    canvas: Canvas, frame: Frame, person: Character, mass: Region, cap: Points, locks: list[Points]
) -> None:
    unit = frame.unit
    soft = person.shading in ("soft", "painted")
    top = frame.y - 1.7 * unit
    if person.hair != person.hair_tip:
        canvas.gradient(mass, person.hair, person.hair_tip, frame.y + 0.1 * unit, frame.y + 2.4 * unit)
    else:
        canvas.paint(mass, person.hair)
    if soft:
        canvas.gradient(mass, shadow_of(person.hair), person.hair, top, top + 0.7 * unit, 0.45)
        glow = mixed(light_of(person.hair), (255, 236, 226), 0.2)
        if person.hair == person.hair_tip:
            canvas.gradient(mass, person.hair, glow, frame.y - 0.8 * unit, frame.y + 0.9 * unit, 0.4)
    if person.shading == "flat":
        return
    aside = person.light * 0.15 * unit
    rim = mass.inside(cap).outside(moved(cap, aside, -0.05 * unit))
    canvas.shade(rim.blurred(0.04 * unit, mass) if soft else rim, SHADE, 0.9)
    below = mass.outside(cap)
    for lock in locks:
        canvas.shade(below.inside(lock).outside(moved(lock, 0.8 * aside, -0.05 * unit)), SHADE, 0.85)


def _shade_lock(canvas: Canvas, frame: Frame, person: Character, bangs: Region, valley: Points, tip: Points) -> None:
    """A wedge of shadow on the dark side of one lock."""
    up = valley + (PARTING - valley) * 0.42
    inner = valley * 0.5 + tip * 0.5
    out = np.sign(valley[0])
    wedge = np.vstack(
        [
            arc(up, moved((up + valley) / 2, 0.06 * out, 0), valley),
            arc(valley, (valley + tip) / 2, tip),
            arc(tip, moved(inner, 0.05 * np.sign(tip[0] - valley[0]), -0.12), up),
        ]
    )
    canvas.shade(bangs.inside(frame(wedge)), (214, 203, 228), 0.95)


def _angel_ring(canvas: Canvas, frame: Frame, person: Character, bangs: Region, rng: np.random.Generator) -> None:
    """The band of light round the crown, with spikes along the strands."""
    if person.shading == "flat" and person.seed % 2:
        return
    n = int(rng.integers(8, 13))
    x = np.linspace(-1.02, 1.02, 2 * n + 1) + np.r_[0, rng.normal(0, 0.02, 2 * n - 1), 0]
    middle = -1.12 + 0.34 * x**2
    spike = np.arange(2 * n + 1) % 2 == 1
    high = np.where(spike, rng.uniform(0.03, 0.12, 2 * n + 1), 0.012)
    low = np.where(spike, rng.uniform(0.05, 0.22, 2 * n + 1), 0.008)
    fade = np.clip(1.2 - np.abs(x + 0.3 * person.light) ** 1.4, 0.0, 1.0)
    band = np.vstack([np.stack([x, middle - high * fade], 1), np.stack([x, middle + low * fade], 1)[::-1]])
    light = bangs.inside(frame(band), 0.07 * frame.unit)
    if person.shading in ("soft", "painted"):
        light = light.blurred(0.022 * frame.unit, bangs)
    canvas.paint(light, light_of(person.hair), 0.8 if person.hair_colour != "black" else 0.5)


def _ink(
    canvas: Canvas,
    frame: Frame,
    person: Character,
    mass: Region,
    cap: Points,
    locks: list[Points],  # in face units
    valleys: Points,
    rng: np.random.Generator,
) -> None:
    """The outline of the whole, and strands drawn from the parting."""
    unit, ink = frame.unit, line_of(person.hair)
    width = max(1, round(person.line * unit * 1.1))
    outlines, _ = cv2.findContours(mass.cover, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(mass.x, mass.y))
    smooth = [cv2.approxPolyDP(outline, 0.75, True) for outline in outlines]
    cv2.polylines(canvas.pixels, smooth, True, ink, width, cv2.LINE_AA)
    canvas.outline(cap[len(spline(CAP)) + 9 : -9], width * 0.85, ink)
    for lock in locks:
        for half in np.array_split(lock, 2):
            hanging = half[half[:, 1] > 0.12]
            if len(hanging) > 2:
                canvas.stroke(frame(hanging, hanging=True), person.line * unit, ink, (0.6, 1.0, 0.6))
    thin, parting = mixed(ink, person.hair, 0.3), moved(PARTING, 0.15 * person.turn, 0.0)
    for valley in valleys[1:-1]:
        up = valley + (parting - valley) * rng.uniform(0.4, 0.8)
        control = moved((valley + up) / 2, 0.14 * np.sign(valley[0]) * abs(valley[0]), -0.03)
        canvas.stroke(frame(arc(valley, control, up)), person.line * unit, thin, (1.0, 0.8, 0.5, 0.1))
    faint = mixed(person.hair, ink, 0.3)
    for side in (-1.0, 1.0):
        for k in range(2):
            start = moved(parting, side * (0.1 + 0.06 * k), 0.08 + 0.1 * k)
            end = (side * rng.uniform(1.0, 1.16), -0.75 + 0.3 * k + rng.uniform(-0.1, 0.1))
            bend = (side * (0.7 + 0.1 * k), start[1] + 0.04)
            canvas.stroke(frame(arc(start, bend, end)), person.line * 0.75 * unit, faint, (0.1, 0.8, 1.0, 0.2))
