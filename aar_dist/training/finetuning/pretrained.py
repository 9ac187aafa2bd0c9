"""Where fine-tuning starts: the architecture and the weights of a stored model.

init_from -> Checkpoint, verified -> defaults below what the user says -> no contradiction -> backbone's weights
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from aar_dist.base.addresses import without_secrets
from aar_dist.base.cache import Cache
from aar_dist.base.config import ClassSpec, load
from aar_dist.base.errors import ConfigError, one_line
from aar_dist.base.remote import is_url
from aar_dist.models.backbone import Backbone
from aar_dist.models.inflation import Inflation, adapted, inflation_of
from aar_dist.store.checkpoint import OWNER, Checkpoint, load_weights, specs
from aar_dist.store.registry import SCHEME, Store, named, resolve, store_of
from aar_dist.training.config import RunConfig
from aar_dist.training.finetuning.config import SCHEMA, FinetuneConfig
from aar_dist.training.meeting.meeting import attend

FOLLOWED = ("segment_duration", "max_window_length", "normalize", "statistics", "sensors", "kinds")
"""What the stream hands on follows the pretraining's, unless the user says otherwise."""
CHANNELS = ("channels", "rename")
"""What a model may have otherwise than the stored one: its channels are inflated by name."""
C = TypeVar("C", bound=RunConfig)


def load_config(argv: Sequence[str]) -> FinetuneConfig:
    """The configuration of these arguments, on top of what ``init_from`` was trained with. Raises ``ConfigError``,
    ``CheckpointError``."""
    config = load(SCHEMA, [argument for argument in argv if argument != "--print_config"])
    source = source_of(config)
    return load(SCHEMA, argv, _defaults(source) if source else None)


def source_of(config: FinetuneConfig) -> Checkpoint | None:
    """The stored model that a run starts from; None from scratch. A run that has begun stays with the version that was
    the latest then. Raises ``CheckpointError`` if there is none, or if it is damaged."""
    if not config.init_from:
        return None
    return opened(_begun_with(config) or config.init_from, config)


def opened(reference: str, config: RunConfig) -> Checkpoint:
    """A stored model, from the store of this configuration and through its cache. Raises as ``resolve``."""
    remote = is_url(reference) or is_url(config.store.path)
    cache = Cache.of(config.data.cache, config.data.cache_bytes) if remote else None
    return resolve(reference, config.store.path, cache)


def begun(config: C) -> C:
    """The configuration with the number that rank 0 finds for ``latest``, or began with, so that all ranks start from
    the same version whatever is published meanwhile. Raises ``CheckpointError`` if there is none."""
    with attend() as met:
        found = met.of_main(lambda: _numbered(config))
    return replace(config, init_from=found) if str(config.init_from).endswith("@latest") else config


def _numbered(config: RunConfig) -> str | None:
    """``init_from`` with a number; no weights are read."""
    reference = config.init_from or ""
    if not (reference.startswith(SCHEME) and reference.endswith("@latest")):
        return config.init_from
    name, _ = named(reference)
    return _begun_with(config) or f"{SCHEME}{name}@{Store(store_of(config.store.path, reference)).look(name)[0]}"


def taught(config: FinetuneConfig, source: Checkpoint | None, subjects: Sequence[str]) -> tuple[str, ...]:
    """Those of some subjects whose labels the stored model has learned that a run starts from."""
    known = source.taught if source and not config.from_scratch else frozenset()
    return tuple(sorted(known & {*subjects}))


def pinned(config: FinetuneConfig, source: Checkpoint | None) -> FinetuneConfig:
    """The configuration with the version's number in place of ``latest``."""
    if source and str(config.init_from).startswith(SCHEME):
        return replace(config, init_from=source.reference)
    return config


def check_architecture(config: FinetuneConfig, source: Checkpoint) -> None:
    """Raise ``ConfigError`` if the configuration asks for another model than the stored one."""
    stored, _ = specs(source.config())
    asked = config.model
    pairs = {"model.class_path": (stored.class_path, asked.class_path)}
    if stored.class_path == asked.class_path:
        pairs |= {
            f"model.{key}": (stored.init_args.get(key, value), value)
            for key, value in asked.init_args.items()
            if key not in CHANNELS and not (key == "per_channel" and value)
        }
    for key, (old, new) in pairs.items():
        if old != new:
            name = SCHEMA.links.get(key, key)
            raise ConfigError(
                f"{name} is {new}, but {without_secrets(str(config.init_from))} has {old}: the architecture is read "
                f"from the stored model; leave {name} out, or start from another model"
            )


def inflation(config: FinetuneConfig, source: Checkpoint | None) -> Inflation | None:
    """What becomes of the stored model's channels; None where they stay as they are, and from scratch.

    Args:
        config: With its channels named.
        source: What it starts from.
    """
    if source is None or config.from_scratch:
        return None
    return inflation_of(specs(source.config())[0].init_args, config.model.init_args, config.inflate)


def load_backbone(
    backbone: Backbone, source: Checkpoint, channels: Inflation | None = None, *, seed: int = 578
) -> None:
    """Give a backbone the stored weights. Raises ``CheckpointError`` if they do not fit.

    Args:
        backbone: Fresh.
        source: A stored model; its head is left behind.
        channels: What becomes of its channels, where the backbone has others.
        seed: Of the noise with which new channels start.
    """
    weights = {name.removeprefix(OWNER): w for name, w in source.weights().items() if name.startswith(OWNER)}
    load_weights(backbone, adapted(weights, backbone, channels, seed=seed), source.where)


def fresh_parameters(backbone: Backbone, channels: Inflation | None) -> set[str]:
    """Parameters of the objective's backbone that the stored model does not have so: those with channels of its own.
    Channels have their weights in one parameter, so those that were transferred are among them."""
    return {f"{OWNER}{name}" for name in backbone.channel_parameters()} if channels and channels.new else set()


def _defaults(source: Checkpoint) -> dict[str, Any]:
    config = source.config()
    model: ClassSpec = specs(config)[0]
    arguments = {key: value for key, value in model.init_args.items() if f"model.{key}" not in SCHEMA.links}
    if arguments.pop("channels", None):  # those of the labelled windows take their place
        arguments["per_channel"] = True
    data = {key: config["data"][key] for key in FOLLOWED if key in config["data"]}
    return {"model": {"class_path": model.class_path, "init_args": arguments}, "data": data}


def _begun_with(config: RunConfig) -> str | None:
    """The version that the run in ``out`` began with, if ``latest`` of the same model is asked for."""
    file = Path(config.out) / "config.yaml"
    if not config.out or not str(config.init_from).endswith("@latest") or not file.is_file():
        return None
    try:
        settings = yaml.safe_load(file.read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read ({one_line(error)}); restore it, or choose another --out") from None
    before = str(settings.get("init_from")) if isinstance(settings, dict) else ""
    name = str(config.init_from).removesuffix("latest")
    return before if re.fullmatch(re.escape(name) + r"\d+", before) else None
