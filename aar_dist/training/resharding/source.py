"""What a checkpoint's files hold, whatever cluster wrote them.

*_optim_states.pt of every rank (ZeRO 1-3)   flat tensors of fp32 weights and moments
*_model_states.pt of rank 0                  shapes, buffers, client state; at ZeRO 0 all there is

Files are mapped, not read: memory is needed for one parameter at a time.
"""

import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aar_dist.base.errors import CheckpointError, one_line
from aar_dist.training.resharding.pieces import Piece, shares, stretches, whole

WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")
OPTIMIZED = "optimized"
"""Entry of the client state: names of the parameters that are trained, in the optimizer's order."""

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    pickle.UnpicklingError,
)

Flats = dict[str, list[Tensor]]
"""WEIGHT or moment -> a rank's tensors."""
Place = tuple[Flats, Piece]


class Source:
    """The fp32 weights and the optimizer state of a checkpoint, by the name of the parameter.

    Raises:
        CheckpointError: the files are of a kind that is not understood, or do not hold every parameter whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
        except UNREADABLE as error:
            raise CheckpointError(
                f"{path}: DeepSpeed's files there are not understood ({one_line(error)[:120]}); go on with the ranks "
                "and the ZeRO stage that its manifest.json names"
            ) from None

    def _open(self) -> None:
        states = sorted(self.path.glob("*_optim_states.pt"), key=_rank_of)
        model = _load(self.path / f"{'zero_pp_rank_0_' * _is_stage_3(self.path)}mp_rank_00_model_states.pt")
        self.client_state: Mapping[str, Any] = model
        self.buffers: dict[str, Tensor] = {name: model["module"][name] for name in model["buffer_names"]}
        self._aliases: dict[str, str] = dict(model["shared_params"] or {})
        ranks = [_load(path)["optimizer_state_dict"] for path in states]
        if ranks:
            self.shapes = {name: torch.Size(shape) for group in model["param_shapes"] for name, shape in group.items()}
            places = _sharded(ranks, [{n: torch.Size(s).numel() for n, s in g.items()} for g in model["param_shapes"]])
        else:
            self.shapes = {name: model["module"][name].shape for name in model[OPTIMIZED]}
            places = _plain(model["optimizer"], model["module"], self.shapes)
        self._places: dict[str, list[Place]] = defaultdict(list)
        for flats, piece in places:
            self._places[piece.name].append((flats, piece))
        self.step = _step(ranks[0] if ranks else model["optimizer"])
        self._check()

    def _check(self) -> None:
        for name, shape in self.shapes.items():
            pieces = [piece for _, piece in self._places[name]]
            ends = [0, *accumulate(piece.count for piece in pieces)]
            if ends[:-1] != [piece.start for piece in pieces] or ends[-1] != shape.numel():
                raise ValueError(f"{name} is not whole")
            for key in (WEIGHT, *(MOMENTS if self.step is not None else ())):
                for flats, piece in self._places[name]:
                    if flats[key][piece.group].numel() < piece.offset + piece.count:
                        raise ValueError(f"{key} of {name} is short")

    def read(self, key: str, wanted: Piece) -> Tensor:
        """A stretch of a flattened parameter: a copy, (count,) float32.

        Args:
            key: ``weight`` or one of ``MOMENTS``.
        """
        made = torch.empty(wanted.count, dtype=torch.float32)
        for flats, piece in self._places[wanted.name]:
            low, high = max(wanted.start, piece.start), min(wanted.stop, piece.stop)
            if low < high:
                begin = piece.offset + low - piece.start
                found = flats[key][piece.group].detach().reshape(-1)[begin : begin + high - low]
                made[low - wanted.start : high - wanted.start] = found
        return made

    def weight(self, name: str) -> Tensor:
        """A parameter in its shape, float32."""
        shape = self.shapes[name]
        return self.read(WEIGHT, Piece(name, 0, shape.numel(), 0, 0)).view(shape)

    def weights(self) -> dict[str, Tensor]:
        """All that was trained, under every name that it has, and the buffers; float32."""
        made = {name: self.weight(name) for name in self.shapes}
        made |= {alias: made[name].clone() for alias, name in self._aliases.items() if name in made}
        return made | {name: value.float() for name, value in self.buffers.items()}

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        """Put the weights into a module that is not DeepSpeed's yet. What was not trained stays as it is: it is what it
        was made from."""
        for name, parameter in module.named_parameters():
            if name in self.shapes:
                parameter.copy_(self.weight(name))
        for name, buffer in module.named_buffers():
            if name in self.buffers:
                buffer.copy_(self.buffers[name])


def _load(path: Path) -> dict[str, Any]:
    """DeepSpeed's own files need pickle; their hashes have been verified."""
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    return loaded


def _rank_of(path: Path) -> int:
    return int(path.name.partition("_pp_rank_")[2].partition("_")[0])


def _is_stage_3(path: Path) -> bool:
    return not (path / "mp_rank_00_model_states.pt").exists()


def _plain(optimizer: dict[str, Any], module: dict[str, Tensor], shapes: Mapping[str, torch.Size]) -> Iterator[Place]:
    """ZeRO 0: weights are the module's, or in bf16 the masters that the optimizer has."""
    masters = [tensor for group in optimizer.get("fp32_groups", []) for tensor in group]
    weights = masters or [module[name] for name in shapes]
    flats = {WEIGHT: weights, **_moments(optimizer)}
    for piece in whole({name: shape.numel() for name, shape in shapes.items()}):
        yield flats, piece


def _sharded(ranks: Sequence[dict[str, Any]], groups: Sequence[dict[str, int]]) -> Iterator[Place]:
    """ZeRO 1, 2 and 3, rank by rank."""
    key = "fp32_flat_groups" if ranks[0]["zero_stage"] == 3 else "single_partition_of_fp32_groups"
    for rank, state in enumerate(ranks):
        flats = {WEIGHT: state[key], **_moments(state)}
        for i, sizes in enumerate(groups):
            pieces: Iterable[Piece]
            if state["zero_stage"] == 3:
                pieces = shares(sizes, len(ranks), rank, i)
            else:
                length = state[key][i].numel() + state["group_paddings"][i]
                gaps = state["param_alignment_paddings"][i]
                ends = accumulate(size + gap for size, gap in zip(sizes.values(), gaps, strict=True))
                pieces = stretches(sizes, [0, *ends][:-1], length, rank, i)
            for piece in pieces:
                yield flats, piece


def _adam(state: dict[str, Any]) -> dict[int, dict[str, Tensor]]:
    """State of torch's optimizer inside that of DeepSpeed's, if there is one around it."""
    inner = state.get("base_optimizer_state", state.get("optimizer_state_dict", state))
    adam: dict[int, dict[str, Tensor]] = inner["state"]
    return adam


def _moments(state: dict[str, Any]) -> Flats:
    adam = _adam(state)
    return {key: [adam[i][key] for i in sorted(adam)] for key in MOMENTS}


def _step(state: dict[str, Any]) -> float | None:
    """Steps that Adam has taken; None before the first."""
    return next((float(each["step"]) for each in _adam(state).values()), None)
