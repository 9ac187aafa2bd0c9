"""What each way of adapting trains, how fast and for how long; where the phases of a run end."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from finetune_toys import ENCODER_ARGUMENTS
from hypothesis import given
from hypothesis import strategies as st
from launching import ROOT

from aar_dist.base.config import ClassSpec, dump, load
from aar_dist.base.errors import CheckpointError, ConfigError
from aar_dist.models.inflation import Inflation
from aar_dist.store.checkpoint import build_objective
from aar_dist.stream.batch import SegmentBatch
from aar_dist.stream.config import DataConfig
from aar_dist.training.adaptation.fixed import Frozen, Full, Unlocked
from aar_dist.training.adaptation.history import history
from aar_dist.training.adaptation.layer_decay import LayerDecay
from aar_dist.training.adaptation.lora import Lora
from aar_dist.training.adaptation.policy import NAMES, checked
from aar_dist.training.adaptation.staged import Staged
from aar_dist.training.config import ENCODER, LoopConfig
from aar_dist.training.engine import by_factor, parameter_shapes
from aar_dist.training.engines import ended
from aar_dist.training.finetuning.config import CLASSIFICATION, SCHEMA
from aar_dist.training.finetuning.freezing import FreezeConfig, policy_of
from aar_dist.training.finetuning.pretrained import fresh_parameters
from aar_dist.training.phases import Course, Phase, cut, told
from aar_dist.training.progress import Progress
from aar_dist.training.run_directory import RunDirectory

HEAD = {"head.linear.weight", "head.linear.bias"}
POSITIONS = "backbone.embedding.positions"


@pytest.fixture
def objective():
    """Two layers of width 64 and a head for three classes."""
    torch.manual_seed(0)
    model = ClassSpec(ENCODER, {**ENCODER_ARGUMENTS, "max_window_length": 20, "transformer_dropout": 0.0})
    return build_objective(model, ClassSpec(CLASSIFICATION, {"n_classes": 3, "head_dropout": 0.0}))


def batch() -> SegmentBatch:
    generator = torch.Generator().manual_seed(1)
    return SegmentBatch(
        values=torch.randn(4, 20, 3, generator=generator),
        valid=torch.ones(4, 20, 3, dtype=torch.bool),
        rate_hz=torch.full((4,), 20.0),
        dataset=torch.zeros(4, dtype=torch.int64),
        channel=torch.arange(3).expand(4, 3),
        key=torch.arange(4),
        label=torch.arange(4) % 3,
    )


def layer(number: int, objective) -> set[str]:
    return {name for name, _ in objective.named_parameters() if name.startswith(f"backbone.layers.{number}.")}


def test_one_phase(objective):
    (full,) = checked(Full().phases(objective, 7), objective)
    assert (full.epochs, full.factors) == (7, None)
    (head,) = checked(Frozen().phases(objective, 7), objective)
    assert set(head.factors) == HEAD
    (last,) = checked(Unlocked(blocks=1).phases(objective, 7, fresh={POSITIONS}), objective)
    assert set(last.factors) == HEAD | layer(1, objective) | {POSITIONS}
    last.apply(objective)
    assert {n for n, p in objective.named_parameters() if p.requires_grad} == set(last.factors)
    assert told([head], parameter_shapes(objective)) == "head only (579 parameters move)"


def test_the_guides_three_stages(objective):
    policy = Staged(full_finetune=True, unfreeze_last_n=1)
    stages = checked(policy.phases(objective, 30), objective)
    assert [stage.epochs for stage in stages] == [5, 25, 10]
    assert [stage.fastest for stage in stages] == [1, 1, 0.1]
    assert set(stages[0].factors) == HEAD
    assert set(stages[1].factors) == HEAD | layer(1, objective)
    assert set(stages[2].factors) == set(dict(objective.named_parameters()))
    said = told(stages, parameter_shapes(objective))
    assert said.startswith("head only (579 parameters move) for 5 epochs, then head and last block (")
    assert said.endswith("for 10 epochs at 0.1 of the learning rate")
    assert [s.epochs for s in Staged().phases(objective, 30)] == [5, 25]
    assert [s.name for s in Staged().phases(objective, 1)] == ["head only"]
    assert [s.epochs for s in Staged(head_only_epochs=0).phases(objective, 3)] == [3]
    assert set(Staged().phases(objective, 9, fresh={POSITIONS})[0].factors) == HEAD | {POSITIONS}
    assert [s.epochs for s in cut(stages, 32)] == [5, 25, 2]
    assert [s.epochs for s in cut(stages, 5)] == [5]
    assert cut(stages, None) == cut(stages, 99) == stages


def test_lower_blocks_learn_more_slowly(objective):
    (phase,) = checked(LayerDecay(decay=0.5).phases(objective, 1), objective)
    of = {"head.linear.bias": 1, "backbone.norm.weight": 1, "backbone.layers.1.attention.qkv.weight": 0.5}
    of |= {"backbone.layers.0.attention.qkv.weight": 0.25, POSITIONS: 0.125}
    assert {name: phase.factors[name] for name in of} == of
    groups = by_factor(objective, phase.factors)
    assert list(groups) == [0.125, 0.25, 0.5, 1]
    assert sum(len(of) for of in groups.values()) == len(list(objective.parameters()))
    (fresh,) = LayerDecay(decay=0.5).phases(objective, 1, fresh={POSITIONS})
    assert fresh.factors[POSITIONS] == 1


def test_adapters_begin_at_the_stored_model_and_are_merged_into_it(objective):
    before, names = objective(batch())[0], set(dict(objective.named_parameters()))
    policy = Lora(rank=4, modules=["attention.qkv", "0"])
    policy.prepare(objective)
    assert torch.equal(objective(batch())[0], before)
    (phase,) = checked(policy.phases(objective, 2), objective)
    adapters = {name for name in phase.factors if name not in HEAD}
    assert len(adapters) == 2 * 2 * 2
    assert all(name.endswith((".down.weight", ".up.weight")) for name in adapters)
    phase.apply(objective)
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        objective(batch())[0].backward()
        optimizer.step()
    moved = objective(batch())[0]
    assert moved < before
    plain = policy.plain({name: value.detach() for name, value in objective.state_dict().items()})
    assert set(plain) == names
    torch.manual_seed(0)
    model = ClassSpec(ENCODER, {**ENCODER_ARGUMENTS, "max_window_length": 20, "transformer_dropout": 0.0})
    again = build_objective(model, ClassSpec(CLASSIFICATION, {"n_classes": 3, "head_dropout": 0.0}))
    untouched = {n: v.clone() for n, v in again.state_dict().items()}
    again.load_state_dict(plain)
    assert torch.allclose(again(batch())[0], moved, atol=1e-6)
    same = {n for n, v in untouched.items() if torch.equal(v, plain[n])}
    assert names - same == HEAD | {
        f"backbone.layers.{i}.{m}.weight" for i in (0, 1) for m in ("attention.qkv", "feedforward.0")
    }


def test_channels_that_the_stored_model_has_not_move_with_the_head():
    model = ClassSpec(ENCODER, {**ENCODER_ARGUMENTS, "channels": ["acc.x", "ppg"]})
    backbone = build_objective(model, ClassSpec(CLASSIFICATION, {"n_classes": 3, "n_channels": 2})).backbone
    added, same = Inflation(("ppg",), ("acc.x", "ppg")), Inflation(("ppg", "acc.x"), ("acc.x", "ppg"))
    assert fresh_parameters(backbone, None) == fresh_parameters(backbone, same) == set()
    (name,) = fresh_parameters(backbone, added)
    assert backbone.get_parameter(name.removeprefix("backbone.")).shape[0] == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Unlocked(blocks=0), r"adapt\.blocks must be 1 or more, got 0"),
        (lambda: Staged(head_only_epochs=-1, unfreeze_last_n=0), r"head_only_epochs must .*; adapt\.unfreeze_last_n"),
        (lambda: Staged(full_finetune_epochs=0), r"adapt\.full_finetune_epochs must be 1"),
        (lambda: LayerDecay(decay=0), r"adapt\.decay must be above 0"),
        (lambda: Lora(rank=0), r"adapt\.rank must be 1"),
        (lambda: Lora(dropout=1), r"adapt\.dropout must lie in"),
    ],
)
def test_values_out_of_range_are_told_by_their_key(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Unlocked(blocks=9), r"adapt\.blocks is 9, but the backbone has 3 blocks"),
        (Staged(unfreeze_last_n=4), r"adapt\.unfreeze_last_n is 4, but"),
        (FreezeConfig(unlocked_layers=4).policy, r"freeze\.unlocked_layers is 4, but"),
        (Lora(modules=["nonsense"]), r"called nonsense; there are attention\.out, attention\.qkv, feedforward\.0"),
    ],
)
def test_what_the_model_does_not_have_is_told(objective, policy, said):
    def adapt() -> None:
        policy.prepare(objective)
        policy.phases(objective, 1)

    with pytest.raises(ConfigError, match=said):
        adapt()


def test_a_policy_that_stops_training_what_it_has_moved_is_a_fault(objective):
    names = sorted(HEAD)
    phases = [Phase(name="one", epochs=1, factors=dict.fromkeys(names, 1.0))]
    phases.append(replace(phases[0], name="other", factors={names[0]: 1.0}))
    with pytest.raises(AssertionError, match="other stops training"):
        checked(phases, objective)


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_has_a_short_name(name):
    policy = policy_of(FreezeConfig(), ClassSpec(NAMES[name]))
    assert type(policy).__name__.lower() == name.replace("_", "")


def test_a_policy_may_be_said_in_any_way(tmp_path):
    made = load(SCHEMA, ["--adapt", "layer_decay", "--decay", "0.5"])
    assert made.adapt == ClassSpec(NAMES["layer_decay"], {"decay": 0.5})
    (tmp_path / "two.yaml").write_text("adapt: {class_path: layer_decay, init_args: {decay: 0.5}}\n")
    (tmp_path / "three.yaml").write_text(dump(SCHEMA, made))
    for file in ("two", "three"):
        assert load(SCHEMA, ["--config", str(tmp_path / f"{file}.yaml")]) == made
    assert load(SCHEMA, ["--adapt.class_path=layer_decay", "--adapt.decay=0.5"]) == made


def test_flags_of_the_guide():
    flags = "--adapt staged --head_only_epochs 3 --unfreeze_last_n 4 --full_finetune --full_finetune_epochs 7"
    made = load(SCHEMA, [*flags.split(), "--epochs", "30"])
    policy = policy_of(made.freeze, made.adapt)
    told = (policy.head_only_epochs, policy.unfreeze_last_n, policy.full_finetune, policy.full_finetune_epochs)
    assert told == (3, 4, True, 7)
    assert made.train.epochs == 30
    default = load(SCHEMA, ["--adapt=staged"]).adapt.init_args
    assert (default["head_only_epochs"], default["unfreeze_last_n"], default["full_finetune_epochs"]) == (5, 2, 10)


def test_the_guides_settings_are_laid_over_a_recipe():
    recipe = ROOT / "configs/finetune/hapt.yaml"
    made = load(SCHEMA, ["--config", str(recipe), "--config", str(ROOT / "configs/adapt/staged.yaml")])
    assert made.init_from == "store://real@latest"
    assert made.adapt.init_args["full_finetune"]
    assert (made.optim.lr, made.optim.weight_decay, made.deepspeed.gradient_clipping) == (2e-5, 0.01, 1.0)
    assert (made.train.batch_size, made.train.epochs) == (32, 30)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--adapt", "stagd"], r"no Policy is called 'stagd'; there are full, frozen, unlocked, staged"),
        (["--adapt", "staged", "--unfreeze_last", "2"], r"did you mean adapt\.unfreeze_last_n"),
    ],
)
def test_a_misspelt_way_of_adapting_is_told(flags, said):
    with pytest.raises(ConfigError, match=said):
        load(SCHEMA, flags)


def test_the_first_systems_flags_are_shorthands():
    for freeze, policy in (
        (FreezeConfig(), Full),
        (FreezeConfig(freeze_backbone=True), Frozen),
        (FreezeConfig(unlocked_layers=2), Unlocked),
    ):
        chosen = policy_of(freeze, ClassSpec(NAMES["full"]))
        assert type(chosen) is policy
        assert getattr(chosen, "blocks", 2) == 2
    made = load(SCHEMA, ["--freeze_backbone", "--adapt", "lora"])
    with pytest.raises(ConfigError, match=r"freeze\.freeze_backbone is a way .* another, Lora; give one of them"):
        policy_of(made.freeze, made.adapt)


# --- where phases end --------------------------------------------------------------------------------------------


def course(*epochs: int, n: int = 25, val_every: int = 2, **train: int) -> Course:
    phases = tuple(Phase(name=str(i), epochs=each) for i, each in enumerate(epochs))
    return Course(phases, LoopConfig(**{"batch_size": 10, **train}), n, val_every)


def start() -> Progress:
    return Progress.start("shards", DataConfig(), 1)


def test_a_run_of_one_phase_has_as_many_steps_as_its_epochs():
    assert course(3).until(start()) == course(3).total(start()) == 7
    assert course(3, max_steps=5).until(start()) == 5
    assert course(1, batch_size=512).until(start()) == 1
    other_batch = replace(start(), step=2, position=20)
    assert course(3, batch_size=5).until(other_batch) == 2 + 55 // 5


@given(
    epochs=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n=st.integers(1, 60),
    batch=st.integers(4, 64),
    most=st.none() | st.integers(1, 60),
)
def test_a_phase_ends_where_it_was_going_to_end_from_wherever_it_is_looked_at(epochs, n, batch, most):
    every = max(1, round(n / batch))
    run = course(*epochs, n=n, val_every=every, batch_size=batch, max_steps=most)
    at, ends = start(), []
    total = run.total(at)
    while True:
        until = run.until(at)
        assert until > at.phase_step
        while at.step < until:
            at = at.advance(batch, applied=True)
            assert run.until(at) == until
        assert run.last(at) or until % every == 0 or until == most
        ends.append(until)
        if not run.goes_on(at):
            break
        at = at.next_phase()
    assert len(ends) == len(epochs) or ends[-1] == most
    assert abs(ends[-1] - total) <= every * len(epochs)


def test_a_phase_that_ended_early_gives_the_next_its_own_epochs():
    run = course(5, 2, n=100, val_every=10)
    at = replace(start(), step=20, position=200).next_phase()
    assert (at.phase, at.phase_step, at.phase_position) == (1, 20, 200)
    assert run.until(at) == 40
    assert at.resumed(at.state()) == at


def test_a_state_from_before_there_were_phases_is_understood():
    state = {k: v for k, v in start().state().items() if not k.startswith("phase")}
    assert start().resumed(state) == start()


def test_a_run_goes_on_in_its_own_phase_alone():
    """Other epochs may leave the phase where it stood out, or put another one in its place."""
    stood = replace(start(), step=20, phase=1, phase_name="1")
    course(2, 9, 3).check_continues(stood, "there")
    course(2, 9).check_continues(replace(stood, phase_name=""), "there")
    with pytest.raises(CheckpointError, match=r"there was written in phase 2, 1; now the phases are 0\. Resume with"):
        course(2).check_continues(stood, "there")
    without = course(2, 9, 3)
    without = replace(without, phases=(without.phases[0], without.phases[2]))
    with pytest.raises(CheckpointError, match=r"in phase 2, 1; now the phases are 0, 2\. Resume"):
        without.check_continues(stood, "there")


def test_the_history_has_a_number_for_each_epoch():
    rows = [{"step": 0, "val/loss": 3.0}]
    rows += [{"step": s, "loss": float(s), "accuracy": 0.5, "phase": 1 + (s > 2)} for s in range(1, 5)]
    rows += [{"step": 2, "val/loss": 0.2, "phase": 1}, {"step": 4, "val/loss": None, "phase": 2}]
    rows += [{"step": 4, "test/n": 3}]
    assert history(rows, ["head only", "all layers"], 2) == {
        "step": [2, 4],
        "stage": ["head only", "all layers"],
        "train_loss": [1.5, 3.5],
        "val_loss": [0.2, None],
        "train_accuracy": [0.5, 0.5],
    }


def test_patience_is_each_phases_own(tmp_path):
    directory = RunDirectory(tmp_path)
    rows = [{"step": 10, "val/loss": 0.5}, {"step": 20, "val/loss": 0.6}, {"step": 30, "val/loss": 0.7}]
    directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = SimpleNamespace(course=course(9, 9, n=100, val_every=10), patience=1)
    first = replace(start(), step=20, position=200)
    assert ended(plan, first, directory), "it got worse in this phase"
    assert not ended(plan, replace(first, phase_step=10), directory), "it has been validated once in this phase"
    assert not ended(SimpleNamespace(course=plan.course, patience=None), first, directory)
    assert not ended(plan, replace(first, phase=1), directory), "the last one is the end of the run"
    over = replace(start(), step=90, position=900, phase_step=80)
    assert ended(plan, over, directory)
    assert not ended(SimpleNamespace(course=course(9, 9, n=100, max_steps=90), patience=1), over, directory)


def test_what_an_objective_never_trains_stays_frozen(objective):
    objective.backbone.norm.requires_grad_(False)
    frozen = {"backbone.norm.weight", "backbone.norm.bias"}
    for policy in (Full(), LayerDecay(), Staged(full_finetune=True)):
        last = checked(policy.phases(objective, 9), objective)[-1]
        assert set(last.kept(objective)) == frozen
        last.apply(objective)
        assert {n for n, p in objective.named_parameters() if not p.requires_grad} == frozen
