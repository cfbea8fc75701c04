"""The published StyleGAN2 (of StyleGAN2-ADA's repository, and of StyleGAN3's) as ours, from inert records.

What a network is, its tensors say: names and shapes give sizes, widths and layers. What the file says of itself (the
arguments that it was made with, the settings of its layers) is held against that, and whatever our network does not
compute is refused by its name. Every tensor is used exactly once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from models.gan.fir import setup_filter
from models.gan.stylegan2.layers import ACTIVATION_GAIN
from models.gan.stylegan2.mapping import RATE
from models.interchange.imported_model import (
    ImportedModel,
    Settings,
    build_config,
    complete_generators,
    fill_network,
    fit_widths,
)
from models.interchange.inert_file import InertFile
from models.interchange.inert_pickle import ModelFileError, plain
from models.interchange.published_networks import PublishedNetwork, find_networks, read_training_set
from models.interchange.stylegan2_names import is_filter, to_own

_G_POSITIONS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_D_POSITIONS = ("c_dim", "img_resolution", "img_channels")
# Arguments that are known: checked here, or by the shapes, or without a say in what is computed.
_KNOWN = frozenset(
    (
        *("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "architecture"),
        *("num_layers", "embed_features", "layer_features", "activation", "lr_multiplier", "w_avg_beta", "cmap_dim"),
        *("num_fp16_res", "conv_clamp", "fp16_channels_last", "fused_modconv_default", "resample_filter", "use_noise"),
        *("freeze_layers", "mbstd_group_size", "mbstd_num_channels"),
    )
)
_FIXED: Settings = {"activation": "lrelu", "lr_multiplier": RATE, "use_noise": True}
_LARGE = 1e9  # no setting is as large; a whole number of a stranger's may be larger than any float
_LINEAR = frozenset({"affine", "embed", "skip", "out", "torgb"})  # layers without an activation
_STANDARD_GROUP = 4  # pictures that D sees together where nothing is said, or that it sees all of a batch


def import_published(file: InertFile) -> ImportedModel:
    """The StyleGAN2 of a `.pkl`.

    Raises ModelFileError, naming what is wrong, for a file that is refused or damaged, holds another kind of network,
    or a StyleGAN2 that ours does not compute.
    """
    file.require_sound()
    try:
        return import_networks(find_networks(file.content), read_training_set(file.content))
    except ModelFileError as error:
        raise ModelFileError(f"{file.path} cannot be imported: {error}") from error


def import_networks(published: Mapping[str, PublishedNetwork], training_set: dict[str, Any]) -> ImportedModel:
    """Networks in the published layout, a generator among them, as ours; ModelFileError as `import_published`."""
    plans = {name: _plan_generator(network) for name, network in published.items() if name != "D"}
    settings = next(iter(plans.values()))
    if any(plan != settings for plan in plans.values()):
        raise ModelFileError("G and G_ema are not of the same kind")
    discriminator = _plan_discriminator(published["D"], settings) if "D" in published else None
    notes: list[str] = []
    if discriminator and discriminator["mbstd_group"] is None:
        discriminator["mbstd_group"] = _STANDARD_GROUP
        notes.append(
            f"D looked at all pictures of a batch together (mbstd_group_size is None): here it looks at groups of "
            f"{_STANDARD_GROUP}, the usual number; choose another with --set algorithm.mbstd_group=N"
        )
    config = build_config(settings, discriminator, training_set.get("xflip") is True)
    networks = {}
    for name, network in published.items():
        try:
            names = to_own("D" if name == "D" else "G", network.tensors)
        except ValueError as error:
            raise ModelFileError(f"{name} is not laid out as known: {plain(str(error))}") from error
        networks[name] = fill_network(name, config, {ours: network.tensors[theirs] for theirs, ours in names.items()})
    with_mean = all("mapping.w_avg" in network.tensors for name, network in published.items() if name != "D")
    notes += complete_generators(networks, with_mean)
    return ImportedModel(config, networks, {n: p.record.name for n, p in published.items()}, training_set, notes)


# ---- what a network is, by its tensors


def _plan_generator(network: PublishedNetwork) -> Settings:
    w_dim = network.shape("synthesis.b4.conv1.affine.weight", None, None)[1]
    labels = "mapping.embed.weight" in network.tensors
    inputs = network.shape("mapping.fc0.weight", w_dim, None)[1]
    sides = _find_numbers(network, r"synthesis\.b(\d+)\.conv1\.weight")
    widths = [network.shape(f"synthesis.b{side}.conv1.weight", None, None, 3, 3)[0] for side in sides]
    base, most = fit_widths(network.name, sides, widths)
    settings: Settings = {
        "z_dim": inputs - (w_dim if labels else 0),
        "w_dim": w_dim,
        "c_dim": network.shape("mapping.embed.weight", w_dim, None)[1] if labels else 0,
        "img_resolution": sides[-1],
        "img_channels": network.shape("synthesis.b4.torgb.weight", None, widths[0], 1, 1)[0],
        "num_layers": len(_find_numbers(network, r"mapping\.fc(\d+)\.weight")),
    }
    if settings["z_dim"] < 1:
        raise ModelFileError(f"{network.name} takes no latent: its first layer has {inputs} inputs")
    arguments = network.arguments(_G_POSITIONS)
    _check_said(network, arguments, settings, "skip")
    _check_widths(network.name, arguments, sides, widths)
    return settings | {"channel_base": base, "channel_max": most, **_read_precision(network, arguments, sides)}


def _plan_discriminator(network: PublishedNetwork, generator: Settings) -> Settings:
    sides = [4, *_find_numbers(network, r"b(\d+)\.conv0\.weight")]
    last, inputs, _, _ = network.shape("b4.conv.weight", None, None, 3, 3)
    widths = [last, *(network.shape(f"b{side}.conv0.weight", None, None, 3, 3)[0] for side in sides[1:])]
    base, most = fit_widths("D", sides, widths)
    if [side for side in sides[:-1] if f"b{side}.fromrgb.weight" in network.tensors]:
        raise ModelFileError('D reads pictures at every size (architecture "skip"): ours is "resnet" or "orig"')
    architecture = "resnet" if f"b{sides[-1]}.skip.weight" in network.tensors else "orig"
    labels = "mapping.embed.weight" in network.tensors
    features = inputs - last
    if features < 0 or (features and last % features):
        raise ModelFileError(
            f"D's last convolution has {inputs} inputs, which {last} channels and a spread do not give"
        )
    settings: Settings = {
        "c_dim": network.shape("mapping.embed.weight", None, None)[1] if labels else 0,
        "img_resolution": sides[-1],
        "img_channels": network.shape(f"b{sides[-1]}.fromrgb.weight", widths[-1], None, 1, 1)[1],
    }
    for key, value in settings.items():
        if value != generator[key]:
            raise ModelFileError(f"D and G do not belong together: {key} is {value} and {generator[key]}")
    arguments = network.arguments(_D_POSITIONS)
    _check_said(network, arguments, settings | {"mbstd_num_channels": features}, architecture)
    _check_widths("D", arguments, sides, widths)
    clamp = _read_precision(network, arguments, sides)["conv_clamp"]
    if clamp != generator["conv_clamp"]:
        raise ModelFileError(f"conv_clamp is {clamp} in D and {generator['conv_clamp']} in G: ours has one for both")
    return {
        "channel_base": base,
        "channel_max": most,
        "d_architecture": architecture,
        "mbstd_group": _read_group(network, arguments),
        "mbstd_features": features,
    }


def _find_numbers(network: PublishedNetwork, pattern: str) -> list[int]:
    """The numbers in the names of tensors, rising."""
    found = [re.fullmatch(pattern, name) for name in network.tensors]
    return sorted(int(match[1]) for match in found if match and len(match[1]) <= 6)


# ---- what a file says of itself


def _check_said(network: PublishedNetwork, arguments: Settings, settings: Settings, architecture: str) -> None:
    """Raise ModelFileError for an argument or a layer's setting that is not known, or not what ours computes."""
    unknown = [plain(key) for key in arguments if key not in _KNOWN]
    if unknown:
        raise ModelFileError(
            f"{network.name} was made with settings that are not known here ({', '.join(unknown)}): its program may "
            "compute something else with them"
        )
    whole = network.record.state if isinstance(network.record.state, dict) else {}
    fixed = dict(_FIXED)
    if "mapping.fc0.weight" not in network.tensors:  # a D converted from TensorFlow says a rate of layers it lacks
        del fixed["lr_multiplier"]
    for key, expected in (settings | fixed).items():
        for said in (arguments.get(key), whole.get(key)):
            if said is not None and not _same(said, expected):
                raise ModelFileError(f"{network.name} says that {key} is {plain(said)}, but it is {expected} here")
    named = {"": arguments.get("architecture"), **network.said("architecture")}
    for path, said in named.items():
        if said not in (None, architecture):
            raise ModelFileError(
                f"{network.name} has the architecture {plain(said)} ({path or 'as a whole'}), but its tensors are "
                f"those of {architecture}"
            )
    _check_layers(network)
    _check_filters(network, arguments)


def _same(said: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return isinstance(said, int | float) and abs(said) < _LARGE and math.isclose(said, expected, rel_tol=1e-6)
    return type(said) is type(expected) and bool(said == expected)


def _check_layers(network: PublishedNetwork) -> None:
    """Raise ModelFileError for a layer that says it scales or bends values otherwise than ours."""
    for path, use in network.said("use_noise").items():
        if use is not True:
            raise ModelFileError(f"{network.name}: {path} takes no noise (use_noise is {plain(use)}), ours always does")
    for path in network.modules:
        weight = network.tensors.get(f"{path}.weight")
        if weight is None or weight.ndim < 2:
            continue
        part = path.rpartition(".")[2]
        rate = RATE if re.search(r"(^|\.)mapping\.fc\d+$", path) else 1.0
        expected: Settings = {
            "activation": "linear" if part in _LINEAR else "lrelu",
            "act_gain": 1.0 if part in _LINEAR else ACTIVATION_GAIN,
            "weight_gain": rate / math.sqrt(weight[0].numel()),
            "bias_gain": rate,
        }
        state = network.modules[path].state
        for key, value in expected.items():
            if key in state and not _same(state[key], value):
                raise ModelFileError(f"{network.name}: {path} has the {key} {plain(state[key])}, ours has {value}")


def _check_filters(network: PublishedNetwork, arguments: Settings) -> None:
    taps = setup_filter()
    standard = torch.outer(taps, taps)
    for name, tensor in network.tensors.items():
        if is_filter(name) and not (tensor.shape == standard.shape and torch.allclose(tensor.float(), standard)):
            raise ModelFileError(
                f"{network.name}: {name} is another filter than [1, 3, 3, 1], which ours has everywhere"
            )
    if arguments.get("resample_filter") not in (None, [1, 3, 3, 1], (1, 3, 3, 1)):
        raise ModelFileError(f"{network.name} says that it resamples with another filter than [1, 3, 3, 1]")


def _check_widths(name: str, arguments: Settings, sides: list[int], widths: list[int]) -> None:
    """Raise ModelFileError if the file says that its networks are wider or narrower than their tensors."""
    base, most = arguments.get("channel_base", 32768), arguments.get("channel_max", 512)  # the published defaults
    if "channel_base" not in arguments and "channel_max" not in arguments:
        return
    if not isinstance(base, int) or not isinstance(most, int) or [min(base // s, most) for s in sides] != widths:
        raise ModelFileError(
            f"{name} says channel_base {plain(base)} and channel_max {plain(most)}, but has {widths} channels at "
            f"{sides} pixels"
        )


def _read_precision(network: PublishedNetwork, arguments: Settings, sides: list[int]) -> Settings:
    """conv_clamp, and how many of the largest maps are meant for half precision: as layers say, or the whole."""
    says = network.said("conv_clamp")
    # D's residual branches have none of their own, there and here: what they say is not what the others say
    clamps = [clamp for path, clamp in says.items() if not path.endswith(".skip")] or [arguments.get("conv_clamp")]
    for clamp in clamps:
        if clamp is not None and not (isinstance(clamp, int | float) and 0 < clamp < _LARGE):
            raise ModelFileError(f"{network.name}: conv_clamp is {plain(clamp)}, which is no limit")
    if len(set(clamps)) != 1:
        raise ModelFileError(f"{network.name} has layers with different conv_clamp: ours has one for all")
    halves = network.said("use_fp16")
    prefix = "" if network.name == "D" else "synthesis."
    count = arguments.get("num_fp16_res", 0)
    if halves:
        half = [halves.get(f"{prefix}b{side}") is True for side in sides]
        count = sum(half)
        if half != sorted(half):
            raise ModelFileError(f"{network.name} has half precision below full precision: ours has it at the largest")
    if not isinstance(count, int) or not 0 <= count <= 64:
        raise ModelFileError(f"{network.name}: num_fp16_res is {plain(count)}")
    return {"conv_clamp": None if clamps[0] is None else float(clamps[0]), "half_resolutions": count}


def _read_group(network: PublishedNetwork, arguments: Settings) -> int | None:
    """Pictures whose spread D sees together; None: all of a batch."""
    said = network.said("group_size").get("b4.mbstd", arguments.get("mbstd_group_size", _STANDARD_GROUP))
    if said is None:
        return None
    if not isinstance(said, int) or not 1 <= said <= 1024:
        raise ModelFileError(f"D compares groups of {plain(said)} pictures: ours needs a number of 1 to 1024")
    return said
