"""Learning rate as a function of the step, so that nothing has to be restored."""


def noam(step: int, *, d_model: int, warmup_steps: int, factor: float = 1.0) -> float:
    """factor * d^-0.5 * min(step^-0.5, step * warmup^-1.5): up in a line for ``warmup_steps``, then down as
    1 / sqrt(step). Vaswani et al. 2017, section 5.3.

    Args:
        step: From 1, the first optimizer step.
        d_model: Width of a token.
    """
    if step < 1:
        raise ValueError(f"steps count from 1, got {step}")
    rise: float = step * warmup_steps**-1.5
    return float(factor * d_model**-0.5 * min(step**-0.5, rise))
