"""Rows of metadata in Danbooru's schemas, with tags that say what is in the picture.

Schema 2021: typed JSON lines with `tag_string_*`. Schema 2019 (used from 2018 to 2020): every scalar is a string,
tags are a list of objects, favourites a list of user ids. Ratings of the 2021 vintage are s, q, e (s is safe); since
2022 they are g, s, q, e (s is sensitive).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np

from datasets.booru.background import BACKGROUNDS
from datasets.booru.character import Character


class Schema(StrEnum):
    """Which of Danbooru's dumps the metadata looks like."""

    TYPED_2021 = "2021"
    STRINGS_2019 = "2019"


class RatingVintage(StrEnum):
    """What the letter `s` means: safe before 2022, sensitive since."""

    BEFORE_2022 = "2021"
    SINCE_2022 = "2022"


SAFE_LETTER = {RatingVintage.BEFORE_2022: "s", RatingVintage.SINCE_2022: "g"}
CATEGORIES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}
_EPOCH = datetime(2016, 7, 26, 12, 0, 0, tzinfo=UTC)
_SYLLABLES = ("ka", "mi", "to", "ri", "ha", "na", "yu", "ki", "so", "ra", "no", "mo", "shi", "a", "re", "n")
_EXPRESSION_TAGS = {
    "smile": ("smile", "closed_mouth"),
    "neutral": ("expressionless", "closed_mouth"),
    "open_mouth": ("open_mouth", "smile", ":d"),
    "grin": ("grin", "teeth"),
    "sad": ("sad", "frown"),
    "angry": ("angry", "frown"),
    "surprised": ("surprised", "open_mouth", ":o"),
    "smirk": ("smirk",),
    "cat_mouth": (":3",),
    "one_eye_closed": ("one_eye_closed", "open_mouth"),
    "closed_eyes": ("closed_eyes", "open_mouth", "smile"),
}
_ACCESSORY_TAGS = {
    "hair_ribbon": ("hair_ribbon", "ribbon"),
    "hairclip": ("hairclip", "hair_ornament"),
    "hairband": ("hairband",),
    "hair_flower": ("hair_flower", "flower"),
    "cat_ears": ("cat_ears", "animal_ears"),
    "fox_ears": ("fox_ears", "animal_ears"),
    "beret": ("beret", "hat"),
    "witch_hat": ("witch_hat", "hat"),
    "headphones": ("headphones",),
    "horns": ("horns",),
    "glasses": ("glasses",),
    "halo": ("halo",),
}


@dataclass(frozen=True)
class PostFacts:
    """What a row says of its file. Lies planted by a defect are in here already."""

    post_id: int
    md5: str
    ext: str
    width: int
    height: int
    size: int
    rating: str
    deleted: bool
    banned: bool
    parent_id: int | None
    tags: Mapping[str, Sequence[str]]  # category to names


def person_tags(people: Sequence[Character], background: str) -> set[str]:
    """General tags of a picture of these people."""
    tags = set(BACKGROUNDS[background][2]) if background in BACKGROUNDS else set()
    girls = sum(p.gender == "girl" for p in people)
    boys = len(people) - girls
    for count, name in ((girls, "girl"), (boys, "boy")):
        if count:
            tags.add(f"{count}{name}" + ("s" if count > 1 else ""))
    if len(people) == 1:
        tags.add("solo")
    tags |= {"upper_body", "looking_at_viewer"}
    for person in people:
        tags |= {
            f"{person.hair_colour.replace('light_brown', 'brown')}_hair",
            f"{person.eye_colour}_eyes",
            person.bangs,
        }
        tags.add("long_hair" if person.hair_style in ("twintails", "ponytail", "low_twintails") else person.hair_style)
        tags.add(person.hair_style)
        tags |= set(_EXPRESSION_TAGS[person.expression]) | set(_ACCESSORY_TAGS.get(person.accessory, ()))
        tags.add({"serafuku": "school_uniform"}.get(person.outfit, person.outfit))
        tags |= {
            t
            for t, true in (("ahoge", person.ahoge), ("blush", person.blush), ("dark_skin", person.skin == "dark"))
            if true
        }
        if person.hair_tip != person.hair:
            tags.add("gradient_hair")
        if person.wave:
            tags.add("wavy_hair")
    return tags


def made_up_name(rng: np.random.Generator) -> str:
    """A pen name that belongs to nobody in particular."""
    return "".join(str(s) for s in rng.choice(_SYLLABLES, int(rng.integers(2, 5))))


def tag_categories(general: set[str], meta: set[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """All tags of a post by category, each sorted."""
    return {
        "general": sorted(general),
        "artist": [made_up_name(rng)],
        "copyright": ["original"],
        "character": [],
        "meta": sorted(meta),
    }


def post_row(facts: PostFacts, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
    """One post as Danbooru would dump it."""
    up = int(np.clip(rng.lognormal(2.2, 1.0), 1, 400))
    down = -int(rng.integers(0, 2))
    favourites = int(up * rng.uniform(0.6, 2.0))
    created = _EPOCH + timedelta(seconds=37 * facts.post_id % 200_000_000)
    row: dict[str, Any] = {
        "id": facts.post_id,
        "created_at": created,
        "uploader_id": int(rng.integers(1000, 500_000)),
        "approver_id": None,
        "score": up + down,
        "up_score": up,
        "down_score": down,
        "source": f"https://example.invalid/works/{facts.post_id}",
        "md5": facts.md5,
        "rating": facts.rating,
        "image_width": facts.width,
        "image_height": facts.height,
        "file_ext": facts.ext,
        "file_size": facts.size,
        "parent_id": facts.parent_id,
        "has_children": False,
        "is_pending": False,
        "is_flagged": False,
        "is_deleted": facts.deleted,
        "is_banned": facts.banned,
        "pixiv_id": None,
        "updated_at": created,
    }
    if schema is Schema.STRINGS_2019:
        return _strings_2019(row, facts, favourites, rng)
    return _typed_2021(row, facts, favourites)


def _typed_2021(row: dict[str, Any], facts: PostFacts, favourites: int) -> dict[str, Any]:
    for name in ("created_at", "updated_at"):
        row[name] = row[name].isoformat(timespec="milliseconds")
    row["fav_count"] = favourites
    every = sorted(tag for tags in facts.tags.values() for tag in tags)
    row["tag_string"] = " ".join(every)
    row["tag_count"] = len(every)
    for category in CATEGORIES:
        row[f"tag_string_{category}"] = " ".join(facts.tags[category])
        row[f"tag_count_{category}"] = len(facts.tags[category])
    row["has_visible_children"] = row["has_active_children"] = False
    if facts.banned:
        del row["md5"]  # dumps hide the digest of banned posts
    return row


def _strings_2019(row: dict[str, Any], facts: PostFacts, favourites: int, rng: np.random.Generator) -> dict[str, Any]:
    old: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, bool):
            old[name] = value
        elif isinstance(value, datetime):
            old[name] = value.strftime("%Y-%m-%d %H:%M:%S UTC")
        else:
            old[name] = "0" if value is None else str(value)
    old["last_commented_at"] = old["last_noted_at"] = "1970-01-01 00:00:00 UTC"
    old |= {"is_note_locked": False, "is_rating_locked": False, "is_status_locked": False, "pools": []}
    old["favs"] = [str(user) for user in sorted(rng.integers(1, 500_000, favourites).tolist())]
    old["tags"] = [
        {"id": str(tag_id(tag)), "name": tag, "category": str(CATEGORIES[category])}
        for category, tags in facts.tags.items()
        for tag in tags
    ]
    return old


def tag_id(name: str) -> int:
    """A stable made-up id of a tag."""
    return int.from_bytes(name.encode()[:6].ljust(6, b"\0"), "big") % 400_000 + len(name)


def metadata_name(schema: Schema, shard: int) -> str:
    """File name of one shard of the metadata, as the dumps have it."""
    return f"posts{shard:012d}.json" if schema is Schema.TYPED_2021 else f"2018{shard:012d}"


def json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)
