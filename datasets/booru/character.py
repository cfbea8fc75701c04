"""What a drawn person looks like: attributes sampled from one generator, frozen, and fit for the truth file."""

from dataclasses import dataclass

import numpy as np

from datasets.booru.canvas import Rgb
from datasets.booru.palette import CLOTH, EYE_WEIGHTS, EYES, HAIR, HAIR_WEIGHTS, SKIN, SKIN_WEIGHTS, jittered

HAIR_STYLES = {
    "short_hair": 12,
    "bob_cut": 14,
    "medium_hair": 14,
    "long_hair": 26,
    "twintails": 13,
    "low_twintails": 6,
    "ponytail": 8,
    "hair_bun": 4,
    "twin_braids": 5,
}
BANGS = {"blunt_bangs": 20, "swept_bangs": 26, "parted_bangs": 20, "hair_between_eyes": 26, "choppy_bangs": 18}
EYE_SHAPES = {"round": 45, "almond": 30, "drooping": 25}
EXPRESSIONS = {
    "smile": 34,
    "neutral": 14,
    "open_mouth": 17,
    "grin": 6,
    "sad": 7,
    "angry": 6,
    "surprised": 5,
    "smirk": 4,
    "cat_mouth": 4,
    "one_eye_closed": 2,
    "closed_eyes": 1,
}
OUTFITS = {
    "serafuku": 20,
    "collared_shirt": 18,
    "hoodie": 14,
    "sweater": 16,
    "dress": 18,
    "kimono": 10,
    "jacket": 12,
}
ACCESSORIES = {
    "none": 34,
    "hair_ribbon": 12,
    "hairclip": 9,
    "hairband": 8,
    "hair_flower": 8,
    "cat_ears": 7,
    "fox_ears": 3,
    "beret": 5,
    "witch_hat": 3,
    "headphones": 3,
    "horns": 2,
    "glasses": 5,
    "halo": 2,
}
SHADINGS = {"cel": 50, "soft": 32, "flat": 10, "painted": 8}


def choose(rng: np.random.Generator, weights: dict[str, int]) -> str:
    """One key, with probability proportional to its weight."""
    share = np.array(list(weights.values()), dtype=np.float64)
    return str(list(weights)[int(rng.choice(len(share), p=share / share.sum()))])


@dataclass(frozen=True)
class Character:
    """One person. Names of colours and styles are Danbooru tags; lengths are in face units (half a face's width)."""

    gender: str
    hair_colour: str
    hair_style: str
    bangs: str
    eye_colour: str
    eye_shape: str
    expression: str
    skin: str
    outfit: str
    outfit_colour: str
    accessory: str
    shading: str
    ahoge: bool
    blush: bool
    roll: float  # degrees, clockwise
    turn: float  # -1 to 1: nose towards the left or right border of the picture
    hair: Rgb
    hair_tip: Rgb
    eye: Rgb
    skin_rgb: Rgb
    cloth: Rgb
    trim: Rgb
    eye_size: float  # 0.9 to 1.15, factor
    jaw: float  # 0 round to 1 pointed
    line: float  # width of the ink
    light: float  # -1 from the left, 1 from the right
    fringe: float  # how far the bangs reach below the hairline, factor
    wave: float  # how far hanging hair swings from side to side; 0 is straight
    length: float  # 0 to 1 within what the hair style allows
    seed: int  # for the small accidents of the hand


def sample_character(rng: np.random.Generator) -> Character:
    """Draw one person's attributes."""
    gender = "girl" if rng.random() < 0.86 else "boy"
    hair = choose(rng, dict(zip(HAIR, HAIR_WEIGHTS, strict=True)))
    eye = choose(rng, dict(zip(EYES, EYE_WEIGHTS, strict=True)))
    skin = choose(rng, dict(zip(SKIN, SKIN_WEIGHTS, strict=True)))
    style = choose(rng, HAIR_STYLES) if gender == "girl" else "short_hair"
    accessory = choose(rng, ACCESSORIES)
    if gender == "boy" and accessory not in ("none", "glasses", "headphones", "cat_ears", "horns"):
        accessory = "none"
    cloth, trim = (str(n) for n in rng.choice(list(CLOTH), 2, replace=False))
    hair_rgb = jittered(HAIR[hair], rng)
    two_tone = rng.random() < 0.18
    tip = (
        jittered(HAIR[str(rng.choice(["pink", "aqua", "purple", "blue", "blonde", "red"]))], rng)
        if two_tone
        else hair_rgb
    )
    roll = float(np.clip(rng.normal(0, 8.0), -20, 20))
    return Character(
        gender=gender,
        hair_colour=hair,
        hair_style=style,
        bangs=choose(rng, BANGS),
        eye_colour=eye,
        eye_shape=choose(rng, EYE_SHAPES),
        expression=choose(rng, EXPRESSIONS),
        skin=skin,
        outfit=choose(rng, OUTFITS)
        if gender == "girl"
        else choose(rng, {"collared_shirt": 3, "hoodie": 3, "jacket": 3}),
        outfit_colour=cloth,
        accessory=accessory,
        shading=choose(rng, SHADINGS),
        ahoge=bool(rng.random() < 0.24 and accessory not in ("beret", "witch_hat", "halo")),
        blush=bool(rng.random() < 0.6),
        roll=roll,
        turn=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        hair=hair_rgb,
        hair_tip=tip,
        eye=jittered(EYES[eye], rng),
        skin_rgb=jittered(SKIN[skin], rng, 0.3),
        cloth=jittered(CLOTH[cloth], rng),
        trim=jittered(CLOTH[trim], rng),
        eye_size=float(rng.uniform(0.94, 1.12)) * (0.92 if gender == "boy" else 1.0),
        jaw=float(rng.uniform(0.2, 1.0)),
        line=float(rng.uniform(0.02, 0.036)),
        light=float(rng.choice([-1.0, 1.0])),
        fringe=float(rng.uniform(0.9, 1.06)),
        wave=float(rng.uniform(0.06, 0.11)) if rng.random() < 0.3 and style != "twin_braids" else 0.0,
        length=float(rng.random()),
        seed=int(rng.integers(2**31)),
    )
