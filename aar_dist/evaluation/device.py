"""Where a command computes."""

import torch

from aar_dist.base.errors import ConfigError


def device_of(name: str) -> torch.device:
    """A device that is there. Raises ``ConfigError``."""
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from None
