"""The card of an exported model: a head that is YAML, nothing from outside that acts, plain words on the licence."""

from __future__ import annotations

import dataclasses
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models.interchange.model_card import CardError, CardFile, ModelFacts, cell, check_licence, escape, write_model_card
from models.training.config import DatasetRef, DCGANConfig, StyleGAN2Config, TrainingConfig

FACTS = ModelFacts(
    name="faces-run",
    config=TrainingConfig(algorithm=StyleGAN2Config(mapping_layers=2), resolution=64),
    dataset=DatasetRef("faces", 7, "ab" * 32, 4321),
    nimg=200_000,
    weights_sha256="cd" * 32,
    licence="CC-BY-4.0",
    psi=0.7,
    seeds=range(16),
    files=(
        CardFile("G_ema.safetensors", 93_000_000, "12" * 32, "the averaged generator"),
        CardFile("generator.onnx", 94_000_000, "34" * 32, "ONNX"),
    ),
)
MEASURED = {
    "name": "kid_hed-vgg4_faces@v7-abababababab",
    "figure": "kid",
    "value": 0.01234567,
    "error": 0.00021,
    "baseline": None,
    "fakes": 5000,
    "reals": 4321,
    "reference": "faces@v7",
    "reference_digest": "ab" * 32,
    "caution": "",
}
ALL_SPECIAL = re.compile(r"(?<!\\)(?:\\\\)*[`*_\[\]<>#|!&~$]")


def read_head(card: str) -> dict[str, object]:
    start, head, _ = card.split("---\n", 2)
    assert start == ""
    return dict(yaml.safe_load(head))


def read_section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0].strip()


def test_the_head_is_what_the_hub_reads() -> None:
    assert read_head(write_model_card(FACTS)) == {
        "license": "cc-by-4.0",
        "library_name": "kaobako",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["kaobako", "gan", "stylegan2"],
    }


def test_data_settings_and_files_are_told() -> None:
    card = write_model_card(FACTS)
    assert (
        "A StyleGAN2 for RGB pictures of 64 x 64 pixels. It has seen 200,000 pictures in training, of a set of 4,321."
        in card
    )
    assert f"| faces | v7 | 4321 | {'ab' * 32} |" in read_section(card, "Data")
    settings = read_section(card, "Settings")
    assert r"| algorithm.mapping\_layers | 2 |" in settings
    assert "| aspect | \\[4, 4\\] |" in settings
    assert "| transfer | null |" in settings
    assert f"| generator.onnx | ONNX | 94000000 | `{'34' * 32}` |" in read_section(card, "Files")
    assert read_section(card, "Licence") == "CC-BY-4.0."
    assert "Seeds 0 to 15, row by row, psi 0.7" in card


def test_both_published_repositories_are_told_of() -> None:
    """StyleGAN3's generator takes the settings of its layers as arguments of its own."""
    use = read_section(write_model_card(FACTS), "Use")
    assert '`Generator(**arguments.pop("synthesis_kwargs"), **arguments)`' in use


def test_the_label_of_a_snippet_is_one_row() -> None:
    config = FACTS.config.model_copy(update={"labels": 30_000})
    use = read_section(write_model_card(dataclasses.replace(FACTS, config=config)), "Use")
    assert "np.zeros((1, 30000), np.float32)" in use
    assert "eye" not in use


def test_an_unknown_licence_is_said_to_be_missing() -> None:
    card = write_model_card(dataclasses.replace(FACTS, licence="unknown"))
    assert read_head(card)["license"] == "unknown"
    assert read_section(card, "Licence").startswith("**Unknown.** Nobody has said")
    assert "must be filled in before they are published" in card


@pytest.mark.parametrize("text", ["", "my own terms", "MIT\nlicense: mit", "MIT|x", "-MIT", "x" * 65])
def test_a_licence_is_an_identifier(text: str) -> None:
    with pytest.raises(CardError, match="SPDX identifier, such as"):
        write_model_card(dataclasses.replace(FACTS, licence=text))
    assert check_licence("GPL-3.0+") == "GPL-3.0+"


def test_an_imported_model_names_its_origin() -> None:
    origin = {"file": "cats.pkl", "sha256": "ef" * 32, "licence": "non-commercial <b>use</b>", "notes": None}
    said = read_section(write_model_card(dataclasses.replace(FACTS, origin=origin)), "Licence")
    assert "These weights were imported, and the licence of their makers goes with them." in said
    assert f"file: cats.pkl; sha256: {'ef' * 32}; licence: non-commercial \\<b\\>use\\</b\\>." in said


def test_data_of_an_imported_model_are_not_made_up() -> None:
    facts = dataclasses.replace(FACTS, dataset=DatasetRef("cats | dogs", 0, "unknown", 0), nimg=0)
    card = write_model_card(facts)
    said = "Not known here: the weights come from elsewhere, which calls its data cats \\| dogs."
    assert read_section(card, "Data").startswith(said)
    assert "has seen" not in card


def test_what_it_began_with_and_what_is_a_default_are_said() -> None:
    assert "began with" not in write_model_card(FACTS)
    config = FACTS.config.model_copy(update={"transfer": "ee" * 32})
    card = write_model_card(dataclasses.replace(FACTS, config=config, origin={"file": "cats.pkl"}))
    assert f"SHA-256 {'ee' * 32}): its licence may bind these." in read_section(card, "Licence")
    assert read_section(card, "Settings").startswith("The networks were imported.")


def test_metrics_are_a_table_and_their_absence_is_said() -> None:
    assert "kaobako metrics RUN --against NAME@V" in read_section(write_model_card(FACTS), "Metrics")
    lines = [MEASURED, {**MEASURED, "name": "fid", "value": 41.5, "error": None, "caution": "biased by 5000 samples"}]
    said = read_section(write_model_card(dataclasses.replace(FACTS, metrics=lines)), "Metrics")
    assert (
        r"| kid\_hed-vgg4\_faces@v7-abababababab | 0.012346 | 0.00021 |  | 5000 | 4321 | faces@v7 abababababab |"
        in said
    )
    assert "| fid | 41.5 |  |  | 5000 |" in said
    assert said.endswith("biased by 5000 samples")


def test_lines_of_another_program_do_no_harm() -> None:
    odd = {"name": "x|y\n# z", "value": True, "fakes": "<script>", "reference": None, "reference_digest": None}
    said = read_section(write_model_card(dataclasses.replace(FACTS, metrics=[odd])), "Metrics")
    assert r"| x\|y \# z |  |  |  |  |  |" in said
    assert "<script>" not in said


def test_a_network_without_styles_has_no_psi_and_grey_is_one_plane() -> None:
    config = TrainingConfig(algorithm=DCGANConfig(), resolution=64, channels=1)
    card = write_model_card(dataclasses.replace(FACTS, config=config, psi=None, files=FACTS.files[1:]))
    assert "psi" not in read_section(card, "Use")
    assert "pixels[:, :, 0]" in read_section(card, "Use")
    assert "safetensors" not in read_section(card, "Use")
    assert read_head(card)["tags"] == ["kaobako", "gan", "dcgan"]


@given(st.text(max_size=300))
def test_text_from_outside_stays_text(text: str) -> None:
    for shown in (escape(text), cell(text)):
        assert len(shown.splitlines()) <= 1
        assert all(c.isprintable() for c in shown)
        assert not ALL_SPECIAL.search(shown)
    assert len(cell(text)) <= 2 * 200


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_no_name_changes_the_head_or_adds_a_section(name: str, data: str) -> None:
    plain = write_model_card(FACTS)
    card = write_model_card(
        dataclasses.replace(FACTS, name=name, dataset=dataclasses.replace(FACTS.dataset, name=data))
    )
    assert read_head(card) == read_head(plain)
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == [line for line in plain.splitlines() if line.startswith("## ")]
