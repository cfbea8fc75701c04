"""Hair behind the head and on the shoulders: the mass at the back, tails, buns, braids; and the one lock on top."""

import numpy as np

from datasets.booru.canvas import Canvas, Region
from datasets.booru.character import Character
from datasets.booru.curves import Frame, Points, arc, ellipse, mirrored, moved, ribbon_of, spline, strand, waved
from datasets.booru.palette import light_of, line_of, mixed, shadow_of


def _hem(left: float, right: float, y: float, n: int, depth: float, rng: np.random.Generator) -> Points:
    """A lower edge of pointed ends, from the right to the left."""
    edge = np.linspace(right, left, n + 1)
    tips = np.stack([(edge[1:] + edge[:-1]) / 2 + rng.normal(0, 0.04, n), y + rng.uniform(-0.35, 0.3, n) * depth], 1)
    valleys = np.stack([edge, np.full(n + 1, y - depth) + rng.uniform(-0.2, 0.2, n + 1) * depth], 1)
    parts = []
    for k, tip in enumerate(tips):
        a, b = valleys[k], valleys[k + 1]
        parts.append(arc(a, (a[0] * 0.8 + tip[0] * 0.2, tip[1] - 0.2 * depth), tip, 6))
        parts.append(arc(tip, (b[0] * 0.6 + tip[0] * 0.4, b[1] + 0.3 * depth), b, 6)[1:])
    return np.vstack(parts)


def _behind(person: Character, rng: np.random.Generator) -> Points:
    """The mass of hair behind head and neck, as a closed shape."""
    style, grow = person.hair_style, person.length
    half, low, waist, n = {
        "short_hair": (1.22, 0.85 + 0.3 * grow, 1.02, 7),
        "bob_cut": (1.46, 1.2 + 0.3 * grow, 1.2, 8),
        "medium_hair": (1.5, 1.9 + 0.7 * grow, 1.5, 9),
        "long_hair": (1.62, 3.6 + 2.8 * grow, 2.1 + 0.5 * grow, 10),
    }.get(style, (1.2, 0.8 + 0.3 * grow, 0.95, 7))
    middle = min((low - 0.3) / 2, 0.9)
    right = spline([(0, -1.72), (0.78, -1.54), (1.22, -1.06), (1.33, -0.4), (half, middle), (waist, low - 0.3)])
    left = mirrored(right, -1)[::-1]
    hem = _hem(-waist, waist, low, n, 0.3 if low < 2.5 else 0.5, rng)
    return np.vstack([right, hem, left[:-1]])


def _tails(person: Character) -> list[Points]:
    """Middle lines of twintails, ponytail or braids, from the head to the tip."""
    long = 0.7 + 0.6 * person.length
    side = 1.0 if person.seed % 2 else -1.0
    if person.hair_style == "twintails":
        path = [(1.05, -0.95), (1.6, -0.95), (2.0, -0.1), (2.0, 1.0 * long), (1.75, 2.2 * long), (1.95, 3.2 * long)]
        return [spline(mirrored(np.array(path), s)) for s in (-1, 1)]
    if person.hair_style == "low_twintails":
        path = [(1.0, 0.7), (1.35, 0.95), (1.5, 1.6 * long), (1.35, 2.5 * long), (1.5, 3.3 * long)]
        return [spline(mirrored(np.array(path), s)) for s in (-1, 1)]
    if person.hair_style == "twin_braids":
        path = [(1.0, 0.75), (1.15, 1.2), (1.2, 2.0), (1.1, 2.6 * long), (1.12, 3.2 * long)]
        return [spline(mirrored(np.array(path), s)) for s in (-1, 1)]
    if person.hair_style == "ponytail":
        path = [(0.6, -1.35), (1.35, -1.5), (1.85, -0.7), (1.8, 0.6), (1.5, 1.8 * long), (1.75, 2.7 * long)]
        return [spline(mirrored(np.array(path), side))]
    return []


def _paint(canvas: Canvas, frame: Frame, person: Character, shape: Points, depth: float = 0.0) -> Region:
    """Fill one mass of hair: colour into tip colour, shadow on the side away from the light, ink round it."""
    base, tip = (
        mixed(person.hair, shadow_of(person.hair), depth),
        mixed(person.hair_tip, shadow_of(person.hair_tip), depth),
    )
    region = canvas.region(shape)
    if region.empty:
        return region
    if base != tip:
        canvas.gradient(region, base, tip, frame.y + 0.2 * frame.unit, frame.y + 2.6 * frame.unit)
    else:
        canvas.paint(region, base)
    if person.shading != "flat":
        rim = region.outside(moved(shape, person.light * 0.14 * frame.unit, -0.07 * frame.unit))
        if person.shading in ("soft", "painted"):
            rim = rim.blurred(0.06 * frame.unit, region)
        canvas.shade(rim, (206, 194, 222), 0.9)
    canvas.outline(shape, person.line * frame.unit, line_of(person.hair), closed=True)
    return region


def draw_behind(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Everything that hangs behind the body: the mass at the back, tails, buns, braids."""
    rng = np.random.default_rng(person.seed)
    for path in _tails(person):
        if person.hair_style == "twin_braids":
            continue
        _tail(canvas, frame, person, waved(path, person.wave), rng)
    if person.hair_style == "hair_bun":
        for side in (-1, 1):
            _paint(canvas, frame, person, frame(ellipse((0.92 * side, -1.5), 0.47, 0.44)))
            curl = arc((0.75 * side, -1.38), (1.07 * side, -1.33), (1.09 * side, -1.63))
            canvas.stroke(frame(curl), 0.04 * frame.unit, line_of(person.hair))
    mass = frame(waved(_behind(person, rng), person.wave), hanging=True)
    region = _paint(canvas, frame, person, mass, depth=0.62)
    ink = mixed(line_of(person.hair), shadow_of(person.hair), 0.45)
    if person.hair_style in ("medium_hair", "long_hair"):
        low = mass[:, 1].max()
        for k in range(7):
            x = -1.25 + 2.5 * (k + rng.uniform(0.1, 0.9)) / 7
            start, end = rng.uniform(0.2, 1.0), rng.uniform(1.6, 4.5)
            canvas.stroke(
                frame(
                    waved(spline([(x, start), (x * 1.1, (start + end) / 2), (x * 1.2, end)]), person.wave), hanging=True
                ),
                0.035 * frame.unit,
                ink,
            )
        canvas.gradient(
            region, person.hair_tip, mixed(person.hair_tip, (255, 255, 255), 0.4), frame.y, float(low), 0.16
        )


def _tail(canvas: Canvas, frame: Frame, person: Character, path: Points, rng: np.random.Generator) -> None:
    full = 0.62 + 0.16 * person.length
    body = ribbon_of(path, np.array([0.25, 0.85, 1.1, 1.05, 0.85, 0.5, 0.04]) * full)
    for shift in (-0.22, 0.2):
        side = path[len(path) // 3 :] + np.array([shift * np.sign(path[-1, 0]), 0.0])
        end = side[: -rng.integers(6, 12)]
        _paint(canvas, frame, person, frame(ribbon_of(end, np.array([0.5, 0.6, 0.4, 0.03]) * full), hanging=True), 0.3)
    _paint(canvas, frame, person, frame(body, hanging=True), depth=0.1)
    ink = mixed(line_of(person.hair), person.hair, 0.25)
    for offset in (-0.16, 0.02, 0.17):
        line = path[5 + int(rng.integers(0, 5)) : -int(rng.integers(8, 14))]
        line = line + np.stack([offset * full * np.sin(np.linspace(0.5, 2.8, len(line))), np.zeros(len(line))], 1)
        canvas.stroke(frame(line, hanging=True), 0.035 * frame.unit, ink)
    shine = path[9:17]
    canvas.stroke(frame(moved(shine, -0.08 * person.light, 0), hanging=True), 0.1 * frame.unit, light_of(person.hair))


def draw_braids(canvas: Canvas, frame: Frame, person: Character) -> None:
    """Braids lie before the shoulders."""
    if person.hair_style != "twin_braids":
        return
    for path in _tails(person):
        knots = path[:: max(1, len(path) // 11)]
        for k, knot in enumerate(knots[:-1]):
            lean = 0.5 if k % 2 else -0.5
            _paint(canvas, frame, person, frame(ellipse(knot, 0.24 - 0.006 * k, 0.19, angle=lean), hanging=True))
        tuft = strand(knots[-2], knots[-1] + (0, 0.35), 0.26)
        _paint(canvas, frame, person, frame(tuft, hanging=True))
        canvas.stroke(
            frame(arc(knots[-2] + (-0.14, 0.02), knots[-2] + (0, 0.08), knots[-2] + (0.14, 0.02)), hanging=True),
            0.12 * frame.unit,
            person.trim,
            (1.0, 1.0),
        )


def draw_ahoge(canvas: Canvas, frame: Frame, person: Character) -> None:
    """The one lock that will not lie down."""
    if not person.ahoge:
        return
    side = 1.0 if person.seed % 4 < 2 else -1.0
    path = spline([(-0.06 * side, -1.5), (0.05 * side, -1.95), (0.4 * side, -2.12), (0.7 * side, -1.88)])
    _paint(canvas, frame, person, frame(ribbon_of(path, [0.03, 0.13, 0.12, 0.02])))
