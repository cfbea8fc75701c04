"""StyleGAN2's tensors by two names: ours, and those of the published PyTorch networks (StyleGAN2-ADA, StyleGAN3).

Only names differ: both keep unit-normal weights with gains at run time, so values carry over unchanged. The published
networks also hold their filter, as a buffer `resample_filter` of most modules; ours is no part of the state.

    G   mapping.layers.I              mapping.fcI
        mapping.label                 mapping.embed
        w_mean                        mapping.w_avg
        synthesis.constant            synthesis.b4.const
        synthesis.levels.K.grow       synthesis.bR.conv0      R = 4 * 2^K; missing at 4
        synthesis.levels.K.refine     synthesis.bR.conv1
        synthesis.levels.K.to_rgb     synthesis.bR.torgb
            .style .noise                 .affine .noise_const
    D   from_rgb                      bR.fromrgb              the largest R
        levels.K.plain, halve, skip   bR.conv0, conv1, skip   R = 8 * 2^K
        last_conv, dense, out         b4.conv, fc, out
        label.layers.I, label.label   mapping.fcI, embed
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

NetworkName = Literal["G", "D"]  # G_ema is named as G

FILTER = "resample_filter"  # last part of the name of every buffer that holds the published networks' filter

_G_PARTS = {"grow": "conv0", "refine": "conv1", "to_rgb": "torgb"}
_G_INNER = {"style.weight": "affine.weight", "style.bias": "affine.bias", "noise": "noise_const"}
_D_PARTS = {"plain": "conv0", "halve": "conv1", "skip": "skip"}
_D_LAST = {"last_conv": "b4.conv", "dense": "b4.fc", "out": "b4.out"}


def to_published(network: NetworkName, names: Iterable[str], resolution: int) -> dict[str, str]:
    """Our names of a network's tensors (of its state dict) to the published ones.

    resolution: pixels of a side of its pictures, which the name of D's first layer holds. Raises ValueError for a name
    that is not one of ours.
    """
    rename = _publish_g if network == "G" else lambda name: _publish_d(name, resolution)
    return _rename(names, rename, f"no tensors of our StyleGAN2 {network}")


def to_own(network: NetworkName, names: Iterable[str]) -> dict[str, str]:
    """Published names of a network's tensors to ours. Filters are left out: they have no counterpart.

    Raises ValueError for a name that no StyleGAN2 has.
    """
    rename = _own_g if network == "G" else _own_d
    return _rename((name for name in names if not is_filter(name)), rename, f"no tensors of a StyleGAN2 {network}")


def is_filter(name: str) -> bool:
    """Whether a published name means a filter."""
    return name.rpartition(".")[2] == FILTER


def filter_names(network: NetworkName, resolution: int, skips: bool = True) -> list[str]:
    """Published names of the filters of a network for pictures of `resolution` pixels, smallest map first.

    skips: whether D has residual branches, each with a filter of its own.
    """
    sides = [4 << k for k in range((resolution // 4).bit_length())]
    if network == "G":
        parts = [(side, part) for side in sides for part in ("", "conv0.", "conv1.") if side > 4 or part != "conv0."]
        return [f"synthesis.b{side}.{part}{FILTER}" for side, part in parts]
    inner = ("", "fromrgb.", "conv0.", "conv1.", "skip.")
    parts = [
        (side, part)
        for side in sides[1:]
        for part in inner
        if (part != "fromrgb." or side == resolution) and (part != "skip." or skips)
    ]
    return [f"b4.conv.{FILTER}", *(f"b{side}.{part}{FILTER}" for side, part in parts)]


def _rename(names: Iterable[str], rename: Callable[[str], str | None], problem: str) -> dict[str, str]:
    renamed = {name: rename(name) for name in names}
    unknown = sorted(name for name, other in renamed.items() if other is None)
    if unknown:
        more = f" and {len(unknown) - 6} more" if len(unknown) > 6 else ""
        raise ValueError(f"{problem}: {', '.join(unknown[:6])}{more}")
    return {name: other for name, other in renamed.items() if other is not None}


def _publish_mapping(rest: str) -> str | None:
    if found := re.fullmatch(r"layers\.(\d+)\.(weight|bias)", rest):
        return f"mapping.fc{found[1]}.{found[2]}"
    found = re.fullmatch(r"label\.(weight|bias)", rest)
    return f"mapping.embed.{found[1]}" if found else None


def _publish_g(name: str) -> str | None:
    if name == "w_mean":
        return "mapping.w_avg"
    if name == "synthesis.constant":
        return "synthesis.b4.const"
    if name.startswith("mapping."):
        return _publish_mapping(name.removeprefix("mapping."))
    found = re.fullmatch(r"synthesis\.levels\.(\d+)\.(grow|refine|to_rgb)\.(.+)", name)
    if not found:
        return None
    return f"synthesis.b{4 << int(found[1])}.{_G_PARTS[found[2]]}.{_G_INNER.get(found[3], found[3])}"


def _publish_d(name: str, resolution: int) -> str | None:
    if name.startswith("label."):
        return _publish_mapping(name.removeprefix("label."))
    part, _, rest = name.rpartition(".")
    if part == "from_rgb":
        return f"b{resolution}.fromrgb.{rest}"
    if part in _D_LAST:
        return f"{_D_LAST[part]}.{rest}"
    found = re.fullmatch(r"levels\.(\d+)\.(plain|halve|skip)", part)
    return f"b{8 << int(found[1])}.{_D_PARTS[found[2]]}.{rest}" if found else None


def _own_mapping(rest: str) -> str | None:
    if found := re.fullmatch(r"fc(\d+)\.(weight|bias)", rest):
        return f"layers.{found[1]}.{found[2]}"
    found = re.fullmatch(r"embed\.(weight|bias)", rest)
    return f"label.{found[1]}" if found else None


def _own_g(name: str) -> str | None:
    if name == "mapping.w_avg":
        return "w_mean"
    if name == "synthesis.b4.const":
        return "synthesis.constant"
    if name.startswith("mapping."):
        rest = _own_mapping(name.removeprefix("mapping."))
        return f"mapping.{rest}" if rest else None
    found = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name)
    level = _level_of(found[1]) if found else None
    if not found or level is None:
        return None
    part = next(ours for ours, theirs in _G_PARTS.items() if theirs == found[2])
    inner = next((ours for ours, theirs in _G_INNER.items() if theirs == found[3]), found[3])
    return f"synthesis.levels.{level}.{part}.{inner}"


def _own_d(name: str) -> str | None:
    if name.startswith("mapping."):
        rest = _own_mapping(name.removeprefix("mapping."))
        return f"label.{rest}" if rest else None
    part, _, rest = name.rpartition(".")
    for ours, theirs in _D_LAST.items():
        if part == theirs:
            return f"{ours}.{rest}"
    found = re.fullmatch(r"b(\d+)\.(fromrgb|conv0|conv1|skip)", part)
    level = _level_of(found[1]) if found else None
    if not found or not level:  # D's blocks begin at 8
        return None
    if found[2] == "fromrgb":
        return f"from_rgb.{rest}"
    part = next(ours for ours, theirs in _D_PARTS.items() if theirs == found[2])
    return f"levels.{level - 1}.{part}.{rest}"


def _level_of(digits: str) -> int | None:
    """k of a side 4 * 2^k; None for any other number."""
    if len(digits) > 6 or digits != str(int(digits)):
        return None
    side = int(digits)
    return side.bit_length() - 3 if side >= 4 and side & (side - 1) == 0 else None
