"""Which channel of a stream is which channel of a model with embeddings of its own for each.

    stream: acc.x acc.y acc.z ecg.chest ppg.1 ppg.2  --rename {ppg.1: ppg, ppg.2: ppg}-->  model: acc.x … ecg.chest ppg

A model knows its channels by name, a batch tells the names of its own, so that neither the order of a stream's channels
nor what else it holds matters. Renaming brings sensors together that are called otherwise in other data sets; several
channels of a stream may share one of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from aar_dist.base.config import ClassSpec
from aar_dist.base.errors import ConfigError
from aar_dist.stream.batch import SegmentBatch


def renamed(channels: Sequence[str], rename: Mapping[str, str] | None) -> tuple[str, ...]:
    """The names that a model gives these channels, each once, in their order."""
    return tuple(dict.fromkeys((rename or {}).get(name, name) for name in channels))


def with_channels(model: ClassSpec, channels: Sequence[str], *, strict: bool = False) -> ClassSpec:
    """The model with its channels named, where each has an embedding of its own; else as it is.

    Args:
        model: With ``per_channel``, or with ``channels`` that must be those of the stream.
        channels: Of the stream.
        strict: A name to ``rename`` that the stream does not have is an error; else it is passed over, as one that a
            stored model brought along.

    Raises:
        ConfigError: other channels than those of the stream.
    """
    asked, rename = model.init_args.get("channels"), model.init_args.get("rename") or {}
    if not (asked or model.init_args.get("per_channel")):
        return model
    strangers = [name for name in rename if name not in channels]
    if strict and strangers:
        raise ConfigError(f"model.rename: the stream has no channel {strangers[0]!r}; it has {', '.join(channels)}")
    names = renamed(channels, rename)
    if asked and {*asked} != {*names}:
        raise ConfigError(
            f"model.channels are {', '.join(asked)}, but the stream has {', '.join(names)}; choose data.sensors, give "
            "model.rename, or leave model.channels out (per_channel: true)"
        )
    kept = {name: own for name, own in rename.items() if name in channels} or None
    named = {"per_channel": True, "channels": list(asked or names), "rename": kept}
    return replace(model, init_args={**model.init_args, **named})


def problems(channels: Sequence[str] | None, *, per_channel: bool, faithful: bool) -> list[str]:
    """What is wrong with the channels of a model; a line each."""
    if channels is None:
        told = "model.per_channel takes the channels from the stream; without one, name them in model.channels"
        return [told] if per_channel else []
    found = []
    if not channels or len({*channels}) < len(channels):
        found.append(f"model.channels must be names, each once, got {list(channels)}")
    if faithful:
        found.append("model.faithful: the first system has one embedding for all channels; leave model.channels out")
    return found


class ChannelIndex:
    """From the channels of a batch to those of a model."""

    def __init__(self, channels: Sequence[str], rename: Mapping[str, str] | None) -> None:
        self._number = {name: i for i, name in enumerate(channels)}
        self._rename = dict(rename or {})
        self._tables: dict[tuple[tuple[str, ...], torch.device], Tensor] = {}

    def rename(self, names: Mapping[str, str]) -> None:
        """Further names in streams, and what they are here."""
        self._rename |= names
        self._tables.clear()

    def of(self, batch: SegmentBatch) -> Tensor:
        """(B, C) int64 numbers of the model's channels; -1 absent, and where the model has no such channel. A batch
        that does not tell its names has the model's channels in the model's order.

        Raises:
            ConfigError: none of the batch's channels is one of the model.
        """
        if batch.channels is None:
            return batch.channel
        key = (batch.channels, batch.channel.device)
        if key not in self._tables:
            self._tables[key] = torch.tensor(self._numbers(batch.channels), device=batch.channel.device)
        return self._tables[key][batch.channel.clamp(min=0)].masked_fill(batch.channel < 0, -1)

    def _numbers(self, names: Sequence[str]) -> list[int]:
        numbers = [self._number.get(self._rename.get(name, name), -1) for name in names]
        if max(numbers) < 0:
            raise ConfigError(
                f"the model has embeddings for the channels {', '.join(self._number)}, and none for any of "
                f"{', '.join(names)}; choose the sensors it was trained on (data.sensors), tell it their names "
                "(model.rename), or fine-tune it on these"
            )
        return numbers
