"""What one value of a metadata row means, in every spelling that dumps and mirrors have for it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from datasets.sources.config import Rating, RatingVintage

S = "s"  # a rating that only the vintage explains: resolved when posts are read, not when they are converted

_ID = re.compile(r"[0-9]{1,18}")
_PARENT = re.compile(r"\s*([0-9]{1,18})(?:\.0*)?\s*", re.A)
_NUMBER = re.compile(r"[0-9]{1,18}")
_EXTENSION = re.compile(r"[a-z0-9]{1,5}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_LETTERS = {"g": Rating.GENERAL, "q": Rating.QUESTIONABLE, "e": Rating.EXPLICIT, "s": S}
_WORDS = {**{str(rating): str(rating) for rating in Rating}, **{letter: str(word) for letter, word in _LETTERS.items()}}
_NEWER_RATINGS = frozenset((str(Rating.GENERAL), str(Rating.SENSITIVE)))
_FIRST_YEAR = "2000"  # earlier than any site: a placeholder such as 1970-01-01
_NEWER_YEAR = "2022"  # the site renamed its ratings in January 2022
_FIRST_SECOND = 100_000_000  # of 1973: a smaller number is no time, but perhaps a date such as 20161231
_FIRST_MILLISECOND = 100_000_000_000  # as seconds these would be of the year 5138
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = dict(zip(_MONTH_NAMES, range(1, 13), strict=True))
# "Mon Jan 02 15:04:05 -0600 2006", as Gelbooru writes times
_RUBY_TIME = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{1,2}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d) (\d{4})", re.A
)
# Gelbooru's API escapes its tags as for a web page; "&amp;" comes last, or "&amp;lt;" would be unescaped twice
_ENTITIES = (("&#039;", "'"), ("&#39;", "'"), ("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def read_id(value: Any) -> int | None:
    """A post's number, below 10^18; None for anything else. "007" is 7."""
    if type(value) is int:
        return value if 0 <= value < 10**18 else None
    return int(value) if isinstance(value, str) and _ID.fullmatch(value) else None


def read_rating_word(value: Any) -> str:
    """A rating letter or word as a Rating, or `S` where only the vintage can say it."""
    if type(value) is not str:
        value = str(value or "")
    return _WORDS.get(value) or _WORDS.get(value.strip().lower()) or str(Rating.UNKNOWN)


def read_rating(value: Any, vintage: RatingVintage) -> str:
    """A rating letter or word as a Rating. What is not understood is `unknown`, which no recipe takes by default."""
    word = read_rating_word(value)
    return meaning_of_s(vintage) if word == S else word


def meaning_of_s(vintage: RatingVintage) -> str:
    """The Rating that the letter s stands for."""
    return str(Rating.SAFE if vintage is RatingVintage.S_IS_SAFE else Rating.SENSITIVE)


def is_newer_rating(word: str) -> bool:
    """Whether a row with this rating was written after s had become sensitive."""
    return word in _NEWER_RATINGS


def is_newer_date(value: Any) -> bool:
    """Whether a date, in any form that read_date knows, is of 2022 or later."""
    if isinstance(value, str) and value[4:5] == "-":
        return value[:4].isdecimal() and value[:4] >= _NEWER_YEAR
    return value is not None and (read_date(value) or "") >= _NEWER_YEAR


def is_older_date(value: Any) -> bool:
    """Whether a date, in any form that read_date knows, is of the years in which s was safe."""
    return _FIRST_YEAR <= (read_date(value) or "") < _NEWER_YEAR


def read_whole(value: Any) -> int | None:
    """A 32-bit whole number that may be a string; None for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**31) <= number < 2**31 else None


def read_flag(value: Any) -> bool:
    """A flag that may be a number or a string; mirrors of the site write "true" and "false"."""
    if value is False or value is True:
        return value
    return value == 1 or (isinstance(value, str) and value.strip().lower() in ("true", "1", "t"))


def read_parent(value: Any) -> str | None:
    """A parent's id as text, as posts have theirs: 2 for "02", " 2" and 2.0. None for 0, and for what is no id."""
    if type(value) is float and value.is_integer():
        value = int(value)
    elif isinstance(value, str) and (match := _PARENT.fullmatch(value)):
        value = match[1]
    number = read_id(value)
    return str(number) if number else None


def read_md5(value: Any) -> str | None:
    """32 hexadecimal digits in lower case; None for anything else."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if _MD5.fullmatch(text) else None


def read_extension(stated: Any, *addresses: Any) -> tuple[str | None, str | None]:
    """A file's ending in lower case, and what is wrong with it (None: nothing).

    stated: `file_ext`. addresses: names and addresses of the file, for rows that do not state it.
    """
    text = str(stated or "").lower()
    if not text:
        for address in addresses:
            if isinstance(address, str) and address:
                text = _ending(address)
                break
    return (text, None) if _EXTENSION.fullmatch(text) else (None, f"file_ext is {(stated or text or stated)!r}")


def _ending(address: str) -> str:
    """The ending of a name or an address, without its dot, in lower case."""
    try:
        path = urlsplit(address).path
    except ValueError:  # not an address, as with "//["
        path = address
    stem, _, ending = path.rpartition("/")[2].rpartition(".")
    return ending.lower() if stem else ""


def read_date(value: Any) -> str | None:
    """A time as `2006-01-02T21:04:05Z`: UTC, whole seconds, so that text compares as time does. None: not understood.

    Understood are ISO 8601 and what looks like it ("2016-12-31 04:50:40.123 UTC"; without a zone it is UTC), Gelbooru's
    "Mon Jan 02 15:04:05 -0600 2006", and seconds or milliseconds since 1970, also as text, or as {"s": seconds}.
    """
    try:
        if isinstance(value, str):
            text = value.strip()
            return _read_seconds(int(text)) if _NUMBER.fullmatch(text) else _read_time(text)
        if isinstance(value, dict):
            value = value.get("s")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return _read_seconds(int(value))
    except (ValueError, OverflowError):
        return None


def _read_seconds(number: int) -> str | None:
    """Raises OverflowError for numbers that are no time."""
    if number < _FIRST_SECOND:
        return None
    return _iso(_EPOCH + timedelta(seconds=number // 1000 if number >= _FIRST_MILLISECOND else number))


def _read_time(text: str) -> str | None:
    """Raises ValueError, OverflowError for texts that are no time."""
    if text.endswith(" UTC"):
        text = text[:-4]
    if text[:1].isdigit():
        if text[4:5] != "-":
            return None
        time = datetime.fromisoformat(text)
        if time.tzinfo is None and text[13:14] == ":" and text[16:17] == ":":
            return f"{text[:10]}T{text[11:19]}Z"  # what most rows have: as _iso has it, at a fourth of the cost
        return _iso(time)
    if not (match := _RUBY_TIME.fullmatch(text)):
        return None
    month, day, hour, minute, second, sign, zone_hours, zone_minutes, year = match.groups()
    zone = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    local = datetime(
        int(year), _MONTHS.get(month.lower(), 0), int(day), int(hour), int(minute), int(second), tzinfo=UTC
    )
    return _iso(local - zone if sign == "+" else local + zone)


def _iso(time: datetime) -> str:
    if (shift := time.utcoffset()) is not None:
        time = time.replace(tzinfo=None) - shift
    return f"{time.replace(tzinfo=None, microsecond=0).isoformat()}Z"


def split_tags(text: str) -> list[str]:
    """The tags of a text, as they stand."""
    if "&" in text and ";" in text:
        for entity, character in _ENTITIES:
            text = text.replace(entity, character)
    return text.split()
