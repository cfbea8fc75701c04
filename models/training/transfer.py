"""Transfer: begin a training with the weights of another one, of the same or another resolution, where they fit.

A tensor is taken over when a network of the new training has one of the same name and shape. StyleGAN2's layers are
named after their resolution, so that between 64 and 128 px everything but the newest level carries over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.training.atomic import sha256
from models.training.run import find_snapshot
from models.training.snapshot import list_networks, load_weights, read_record, weights_path

NAMED = 6  # tensors that a line of the report names before it only counts


class TransferError(ValueError):
    """A snapshot whose weights do not fit the new training at all."""


@dataclass(frozen=True)
class NetworkTransfer:
    """What became of one network. Names are those of its state dict."""

    network: str  # such as "G"
    taken: tuple[str, ...]  # same name and shape: copied
    reshaped: tuple[str, ...]  # same name, another shape: begin anew
    missing: tuple[str, ...]  # not in the snapshot: begin anew
    unused: tuple[str, ...]  # in the snapshot alone: left there
    values_taken: int  # trained numbers copied, ...
    values: int  # ... of so many that the network has

    def line(self) -> str:
        """For people."""
        if not (self.taken or self.reshaped or self.unused):
            return f"{self.network}: the snapshot holds none, so it begins anew"
        share = self.values_taken / max(self.values, 1)
        tensors = len(self.taken) + len(self.reshaped) + len(self.missing)
        text = f"{self.network}: {len(self.taken)} of {tensors} tensors taken over ({share:.0%} of the weights)"
        for what, names in (
            ("of another shape", self.reshaped),
            ("not in the snapshot", self.missing),
            ("unused", self.unused),
        ):
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                text += f"; {len(names)} {what}: {', '.join(names[:NAMED])}{more}"
        return text


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did, network by network."""

    networks: tuple[NetworkTransfer, ...]

    def lines(self) -> list[str]:
        """One line per network, for people."""
        return [network.line() for network in self.networks]


def transfer_digest(source: Path) -> str:
    """SHA-256 of the weights that `source`, a run folder or a snapshot, stands for: what `config.transfer` holds.

    Raises RunError or SnapshotError if there is no usable snapshot.
    """
    snapshot = find_snapshot(source)
    return read_record(snapshot).weights_sha256 or sha256(weights_path(snapshot))


def transfer_weights(weights: Path, networks: Mapping[str, nn.Module]) -> TransferReport:
    """Copy the tensors of a snapshot's `.safetensors` into networks, by their prefix there ("G", "D", "G_ema").

    Weights alone: optimisers, counters and augmentation begin anew. Nothing is changed unless all networks can take
    something over. A snapshot without D, as an imported one may be, leaves D as it is. Raises TransferError when a
    network can take over none of its weights, SnapshotError for an unreadable file or one without a generator.
    """
    held = list_networks(weights)
    found = {name: load_weights(weights, name) if name != "D" or "D" in held else {} for name in networks}
    report = TransferReport(tuple(_compare(name, network, found[name]) for name, network in networks.items()))
    for part in report.networks:
        matrices = {name for name, weight in networks[part.network].named_parameters() if weight.dim() > 1}
        if found[part.network] and matrices.isdisjoint(part.taken):  # scalars and buffers fit by chance
            raise TransferError(
                f"no weights of {part.network} in {weights.name} have the name and the shape of the new training's: "
                "start from a run of the same algorithm with the same channel_base, channel_max, z_dim and w_dim"
            )
        frozen = [name for name, weight in networks[part.network].named_parameters() if not weight.requires_grad]
        untrained = sorted(set(frozen) - set(part.taken))
        if part.network == "D" and untrained:
            raise TransferError(
                f"freeze_d would keep {len(untrained)} untrained tensors of D as they are ({untrained[0]}, ...): it "
                "needs a snapshot of the same resolution and widths. Leave it at 0"
            )
    for part in report.networks:
        own = networks[part.network].state_dict()
        with torch.no_grad():
            for name in part.taken:
                own[name].copy_(found[part.network][name])
    return report


def _compare(prefix: str, network: nn.Module, found: Mapping[str, torch.Tensor]) -> NetworkTransfer:
    own, weights = network.state_dict(), dict(network.named_parameters())
    taken = tuple(name for name, tensor in own.items() if name in found and found[name].shape == tensor.shape)
    return NetworkTransfer(
        network=prefix,
        taken=taken,
        reshaped=tuple(name for name, tensor in own.items() if name in found and found[name].shape != tensor.shape),
        missing=tuple(name for name in own if name not in found),
        unused=tuple(name for name in sorted(found) if name not in own),
        values_taken=sum(weights[name].numel() for name in taken if name in weights),
        values=sum(weight.numel() for weight in weights.values()),
    )
