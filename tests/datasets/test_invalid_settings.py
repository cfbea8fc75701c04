"""How wrong settings are said: each by its dotted name, in words that a person can act on."""

from __future__ import annotations

import datetime as dt
from typing import Any, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from datasets.errors import say_invalid


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hue: float = Field(0.0, ge=0)
    steps: tuple[int, ...] = ()
    mixed: str = ""
    words: tuple[str, ...] = ()
    day: dt.date | None = None
    name: str

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) == 1:
            raise ValueError("steps takes none, or at least two")
        return value

    @field_validator("mixed")
    @classmethod
    def _check_mixed(cls, value: str) -> str:
        raise ValueError(f"no colour is mixed of {value!r}")

    @field_validator("words")
    @classmethod
    def _check_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if "=" not in word:
                raise ValueError(f"each is NAME=VALUE, not {word!r}")
        return value

    @model_validator(mode="after")
    def _check_all(self) -> Self:
        if self.hue > 1 and not self.steps:
            raise ValueError("a hue above 1 needs steps")
        return self


class Picture(BaseModel):
    colour: Colour


@pytest.mark.parametrize(
    ("model", "values", "said"),
    [
        (Picture, {"colour": {"name": "a", "hue": "b"}},
         ["colour.hue: Input should be a valid number, unable to parse string as a number (got 'b')"]),
        (Picture, {"colour": {"name": "a", "steps": [3]}},
         ["colour.steps: steps takes none, or at least two (got [3])"]),
        (Picture, {"colour": {"name": "a", "hue": 2}}, ["colour: a hue above 1 needs steps"]),
        (Picture, {"colour": {}}, ["colour.name: Field required"]),
        (Picture, {"colour": {"name": "a", "hew": 1}}, ["colour.hew: Extra inputs are not permitted (got 1)"]),
        (Picture, {"colour": {"name": "a", "mixed": "mud"}}, ["colour.mixed: no colour is mixed of 'mud'"]),
        (Picture, {"colour": {"name": "a", "words": ["a=b", "c"]}}, ["colour.words: each is NAME=VALUE, not 'c'"]),
        (Picture, {"colour": {"name": "a", "day": "hello"}},
         ["colour.day: Input should be a valid date or datetime, input is too short (got 'hello')"]),
        (Colour, {"name": "a", "hue": 2}, ["recipe: a hue above 1 needs steps"]),
        (Colour, {"hue": -1}, ["hue: Input should be greater than or equal to 0 (got -1)", "name: Field required"]),
    ],
)  # fmt: skip
def test_each_wrong_setting_is_a_sentence(model: type[BaseModel], values: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(values)
    assert say_invalid(refused.value, whole="recipe") == said


def test_settings_that_do_not_go_together_need_no_name() -> None:
    with pytest.raises(ValidationError) as refused:
        Colour(name="a", hue=2)
    assert say_invalid(refused.value) == ["a hue above 1 needs steps"]
