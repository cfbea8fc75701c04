"""The card of an exported model: README.md with a head that Hugging Face's hub reads.

It says what the model is, of which data exactly it was made, how it was trained and measured, and how to use it.
Names, remarks and figures that come from files of the run are shown as text, whatever is in them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.training.config import DatasetRef, TrainingConfig

CARD = "README.md"
UNKNOWN = "unknown"  # licence, until somebody says
CELL = 200  # characters of a table's cell: a remark may be of any length
KINDS = {1: "grey", 3: "RGB", 4: "RGBA"}
ALGORITHMS = {"stylegan2": "StyleGAN2", "r3gan": "R3GAN", "dcgan": "DCGAN"}
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|!&~$])")


class CardError(ValueError):
    """Something that cannot stand in a card; the message says what to write instead."""


@dataclass(frozen=True)
class CardFile:
    """A file beside the card."""

    name: str
    size: int  # bytes
    sha256: str
    content: str  # what it is, in a few words


@dataclass(frozen=True)
class ModelFacts:
    """What a card tells."""

    name: str  # of the run
    config: TrainingConfig
    dataset: DatasetRef
    nimg: int  # real pictures seen
    weights_sha256: str  # of the snapshot that all files were made of
    licence: str = UNKNOWN  # SPDX identifier, such as CC-BY-4.0
    psi: float | None = None  # of the samples; None: a network without styles
    seeds: Sequence[int] = ()  # of the samples, row by row
    metrics: Sequence[Mapping[str, Any]] = ()  # lines of the run's metrics.jsonl on these weights
    origin: Mapping[str, Any] | None = None  # where imported weights come from
    check: str = ""  # what was compared when the ONNX file was written
    files: Sequence[CardFile] = ()


def check_licence(text: str) -> str:
    """An SPDX identifier as it is, or CardError."""
    if not _LICENCE.fullmatch(text):
        raise CardError(f"a licence is an SPDX identifier, such as CC-BY-4.0, CC0-1.0 or MIT: got {text!r}")
    return text


def write_model_card(facts: ModelFacts) -> str:
    """The card's text. Raises CardError for a licence that is no SPDX identifier."""
    sections = [
        _head(facts),
        f"# {escape(facts.name)}\n\n{_introduce(facts)}",
        _samples(facts),
        _licence(facts),
        _data(facts),
        _use(facts),
        _metrics(facts.metrics),
        _settings(facts),
        _files(facts.files),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def escape(text: object) -> str:
    """Text for markdown: one line, without control characters, and nothing in it means anything."""
    line = "".join(c for c in " ".join(str(text).split()) if c.isprintable())
    return _SPECIAL.sub(r"\\\1", line)


def cell(text: object) -> str:
    """The same, short enough for a table."""
    line = str(text)
    return escape(line if len(line) <= CELL else line[: CELL - 1] + "…")


def _head(facts: ModelFacts) -> str:
    """YAML. JSON values are YAML values, so nothing needs to be quoted by hand."""
    head = {
        "license": check_licence(facts.licence).lower(),
        "library_name": "kaobako",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["kaobako", "gan", facts.config.algorithm.name],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    # A bare name would be a link to whoever has a dataset of that name on the hub.
    lines.append("# datasets: [OWNER/NAME]  (once the data are on the hub; which they are is said below)")
    return "---\n" + "\n".join(lines) + "\n---"


def _introduce(facts: ModelFacts) -> str:
    config = facts.config
    name = ALGORITHMS.get(config.algorithm.name, config.algorithm.name)
    conditional = f", conditional on {config.labels} values" if config.labels else ""
    seen = (
        f" It has seen {facts.nimg:,} pictures in training, of a set of {facts.dataset.count:,}." if facts.nimg else ""
    )
    return (
        f"A {name} for {KINDS[config.channels]} pictures of {config.width} x {config.height} pixels{conditional}."
        f"{seen} Exported by Kaobako from the weights with SHA-256 `{facts.weights_sha256}`. All that is here is of "
        "the averaged generator (`G_ema`) unless it says otherwise."
    )


def _samples(facts: ModelFacts) -> str:
    if not facts.seeds:
        return ""
    psi = "" if facts.psi is None else f", psi {facts.psi:g}"
    label = ", of class seed modulo their number" if facts.config.labels else ""
    seeds = f"{facts.seeds[0]} to {facts.seeds[-1]}"
    return f"![Samples](samples.png)\n\n*Seeds {seeds}, row by row{psi}{label}. Not chosen.*"


def _licence(facts: ModelFacts) -> str:
    if facts.licence.lower() == UNKNOWN:
        said = (
            "**Unknown.** Nobody has said under which licence these weights may be used. It must be filled in before "
            "they are published: here and as `license` in the head, or by exporting again with `--licence`."
        )
    else:
        said = f"{escape(facts.licence)}."
    lines = ["## Licence", "", said]
    if facts.origin is not None:
        known = "; ".join(f"{escape(key)}: {cell(value)}" for key, value in facts.origin.items() if value)
        lines += ["", f"These weights were imported, and the licence of their makers goes with them. {known}."]
    if facts.config.transfer is not None:
        before = cell(facts.config.transfer)
        lines += ["", f"Training began with weights of another model (SHA-256 {before}): its licence may bind these."]
    return "\n".join(lines)


def _data(facts: ModelFacts) -> str:
    data = facts.dataset
    if not _DIGEST.fullmatch(data.digest):
        return (
            f"## Data\n\nNot known here: the weights come from elsewhere, which calls its data {cell(data.name)}. "
            "Say it here before you publish them."
        )
    version = f"v{data.version}" if data.version else "a folder, without versions"
    return (
        "## Data\n\n| name | version | pictures | content digest |\n|---|---|---:|---|\n"
        f"| {cell(data.name)} | {version} | {data.count} | {data.digest} |\n\n"
        "The digest is that of the pictures themselves: data with the same digest are the same data. They belong to "
        "their authors and are not part of this model."
    )


def _use(facts: ModelFacts) -> str:
    names = [file.name for file in facts.files]
    parts = []
    for name in names:
        if name.endswith(".onnx"):
            parts.append(
                f"With onnxruntime{facts.check and f' ({facts.check})'}:\n\n```python\n{_onnx_code(name, facts)}```"
            )
    tensors = [name for name in names if name.endswith(".safetensors")]
    if tensors:
        parts.append(
            "The tensors have the names of the published StyleGAN2-ADA (PyTorch) networks, and `init_kwargs` in a "
            f"file's header are the arguments of its constructor:\n\n```python\n{_tensor_code(tensors[0])}```\n\n"
            "`Generator(**arguments).load_state_dict(tensors)` of that code then takes them as they are. StyleGAN3's "
            'repository wants the settings of `synthesis_kwargs` flat: `Generator(**arguments.pop("synthesis_kwargs"), '
            "**arguments)`."
        )
    return "## Use\n\n" + "\n\n".join(parts) if parts else ""


def _onnx_code(name: str, facts: ModelFacts) -> str:
    config = facts.config
    z_dim = config.algorithm.z_dim
    inputs = ['"z": z']
    before = [
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image",
        "",
        f'session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])',
        "seed = 0",
        f"z = np.random.Generator(np.random.PCG64(seed)).standard_normal((1, {z_dim}), dtype=np.float32)",
    ]
    if facts.psi is not None:
        inputs.append(f'"psi": np.array({facts.psi:g}, np.float32)')
    if config.labels:
        before.append(f"label = np.zeros((1, {config.labels}), np.float32)")
        before.append("label[0, 0] = 1  # class 0")
        inputs.append('"label": label')
    mode = "[:, :, 0]" if config.channels == 1 else ""
    after = [
        f'images = session.run(["images"], {{{", ".join(inputs)}}})[0]  # (1, {config.channels}, '
        f"{config.height}, {config.width}), about -1..1",
        "pixels = np.rint((images[0].clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)",
        f'Image.fromarray(pixels{mode}).save(f"seed-{{seed}}.png")',
    ]
    return "\n".join([*before, *after]) + "\n"


def _tensor_code(name: str) -> str:
    return (
        "import json\n\n"
        "from safetensors import safe_open\n\n"
        f'with safe_open("{name}", framework="pt") as file:\n'
        '    arguments = json.loads(file.metadata()["init_kwargs"])\n'
        "    tensors = {key: file.get_tensor(key) for key in file.keys()}\n"
    )


def _metrics(lines: Sequence[Mapping[str, Any]]) -> str:
    title = "## Metrics\n\n"
    if not lines:
        return title + "None were measured on these weights: `kaobako metrics RUN --against NAME@V` does it."
    rows = [
        "| metric | value | error | KID of two halves of the reals | fakes | reals | reference |",
        "|---|" + "---:|" * 5 + "---|",
    ]
    for line in lines:
        figures = [_figure(line.get(key)) for key in ("value", "error", "baseline", "fakes", "reals")]
        reference = f"{line.get('reference', '')} {str(line.get('reference_digest') or '')[:12]}"
        rows.append("| " + " | ".join([cell(line.get("name", "")), *figures, cell(reference)]) + " |")
    cautions = sorted({str(line["caution"]) for line in lines if line.get("caution")})
    remark = (
        "All of psi 1. Each name says the figure with the number of fakes, the network whose features it is computed "
        "in, the size of the pictures, and the reference with the beginning of its digest. Figures whose names differ "
        "cannot be compared, and those but KID no more where the number of reals does."
    )
    return title + "\n".join(rows) + "\n\n" + " ".join([remark, *(escape(text) for text in cautions)])


def _figure(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def _settings(facts: ModelFacts) -> str:
    settings = flatten(facts.config.model_dump(mode="json"))
    rows = "\n".join(f"| {cell(key)} | {cell(value)} |" for key, value in settings.items())
    remark = ""
    if facts.origin is not None:
        remark = (
            "The networks were imported. What describes them was read from their file; all that is about training is "
            "Kaobako's default, and not how they were trained.\n\n"
        )
    return f"## Settings\n\n{remark}| setting | value |\n|---|---|\n{rows}"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `algorithm.z_dim: 512`, values as JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _files(files: Sequence[CardFile]) -> str:
    if not files:
        return ""
    rows = [f"| {cell(file.name)} | {cell(file.content)} | {file.size} | `{file.sha256}` |" for file in files]
    return "## Files\n\n| file | what | bytes | SHA-256 |\n|---|---|---:|---|\n" + "\n".join(rows)
