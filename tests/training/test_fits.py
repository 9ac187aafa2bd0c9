"""What fits a GPU: bytes against DeepSpeed's own estimate, the recipes on common GPUs, and the command as typed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

from aar_dist.base.config import load
from aar_dist.cli import main
from aar_dist.training.config import SCHEMA
from aar_dist.training.sizes.fits import Fits, Model, _fitted, _options, _recommended, what_fits
from aar_dist.training.sizes.memory import LAYOUTS, states

CONFIGS = Path(__file__).parents[2] / "configs/pretrain"
GB = 10**9


def on_device(*layout) -> int:
    of = states(*layout)
    return sum(of.values()) - of["host"]


@pytest.mark.parametrize("ranks", [1, 4, 64])
def test_states_are_those_that_deepspeed_estimates(ranks):
    """Which counts the float32 gradients of a step as well, and at stage 3 the largest layer: here none."""
    n = 64 * 10**6
    step = 4 * n // ranks
    assert on_device(n, 2, 2, ranks) + step == estimate_zero2_model_states_mem_needs(n, ranks, cpu_offload=False)[1]
    assert on_device(n, 2, 2, ranks, "optimizer") == estimate_zero2_model_states_mem_needs(n, ranks)[1]
    for offload, params in (("optimizer", False), ("all", True)):
        host, device, _ = estimate_zero3_model_states_mem_needs(
            n, 0, ranks, cpu_offload=True, cpu_offload_params=params, additional_buffer_factor=1
        )
        assert on_device(n, 2, 3, ranks, offload) == device
        assert ranks * states(n, 2, 3, ranks, offload)["host"] == host


def test_each_step_of_sharing_needs_less_of_the_device():
    needs = [on_device(10**9, 2, stage, 8, offload) for stage, offload in LAYOUTS if offload != "optimizer"]
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] == 0


@pytest.fixture(scope="module", params=["aar_100m", "aar_1b"])
def recipe(request):
    return request.param, load(SCHEMA, ["--config", str(CONFIGS / f"{request.param}.yaml")])


PROMISES = {  # name -> parameters [millions], (GB of a GPU, ranks) that it runs on as it is
    "aar_100m": (99.3, [(16, 1), (16, 16)]),
    "aar_1b": (1007.4, [(40, 2), (40, 8), (40, 64)]),
}


def test_the_large_recipes_fit_where_they_say(recipe):
    name, config = recipe
    millions, machines = PROMISES[name]
    for gigabytes, ranks in machines:
        fits = what_fits(config, gigabytes * GB, ranks)
        assert fits.model.parameters / 1e6 == pytest.approx(millions, abs=0.1)
        assert fits.configured_fits
        assert config.train.batch_size % (ranks * fits.configured.micro_batch_size) == 0
        found = fits.recommended
        assert found.needs(found.micro_batch_size) <= gigabytes * GB
        assert found.micro_batch_size >= min(8192 / fits.model.tokens, config.train.batch_size / ranks)
    if name == "aar_1b":  # what its header says of 24 GB
        changed = replace(config, deepspeed=replace(config.deepspeed, activation_checkpointing=True))
        assert not what_fits(config, 24 * GB, 8).configured_fits
        assert what_fits(changed, 24 * GB, 4).configured_fits


MADE = Model(parameters=10**9, precision="bf16", tokens=120, kept=(200_000_000, 20_000_000))


@pytest.mark.parametrize(
    ("gigabytes", "ranks", "layout", "micro"),
    [
        (141, 1, (1, "none", False), 512),
        (80, 8, (1, "none", False), 256),
        (24, 4, (1, "none", True), 512),
        (24, 1, (1, "optimizer", True), 512),  # of 16 bytes a parameter only 4 stay
        (11, 8, (2, "none", True), 128),  # at stage 1 there is room for 64, too few to keep it busy
        (5, 8, None, None),
    ],
)
def test_what_costs_least_time_is_recommended(gigabytes, ranks, layout, micro):
    config = load(SCHEMA, ["--train.batch_size", str(512 * ranks)])
    options = [_fitted(option, 512, gigabytes * GB, None) for option in _options(config, MADE, ranks)]
    found = _recommended(options, busy=69)
    assert (found and found.layout) == layout
    assert (found and found.micro_batch_size) == micro


def test_a_small_host_forbids_to_offload():
    config = load(SCHEMA, ["--train.batch_size", "64"])
    for host_bytes, fitting in ((None, 16), (GB, 8)):
        options = [_fitted(option, 64, 80 * GB, host_bytes) for option in _options(config, MADE, 1)]
        assert sum(option.micro_batch_size is not None for option in options) == fitting


def planned(capsys, *flags: object) -> str:
    main(["plan", *map(str, flags)])
    return capsys.readouterr().out


def test_the_page_and_its_json(capsys):
    flags = [CONFIGS / "aar.yaml", "--gpu_memory_gb", "24", "--ranks=2", "--model.d_embedding", "256"]
    told = json.loads(planned(capsys, *flags, "--json"))
    assert set(told) == set(Fits.__dataclass_fields__)
    assert len(told["options"]) == 16
    assert told["recommended"] in told["options"]
    page = planned(capsys, *flags)
    assert f"--config {CONFIGS / 'aar.yaml'} --deepspeed.zero_stage 1 --deepspeed.offload none" in page
    assert page.count("→") == 2
    assert ", fits" in page
    assert max(map(len, page.splitlines()[:-2])) <= 116
    assert "…" not in page
    page = planned(capsys, "--gpu_memory_gb", "0.5")
    assert "nothing fits: one segment at a time needs 1.5 GB at best" in page
    assert "does not fit" in page


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gpu_memory_gb", "0"], "--gpu_memory_gb must be positive, got 0"),
        (["--gpu_memory_gb", "eighty"], "invalid float value: 'eighty'"),
        (["--gpu_memory_gb", "80", "--ranks", "0"], "--ranks must be 1 or more, got 0"),
        (["--gpu_memory_gb", "80", "--ranks", "7"], "train.batch_size 512 is not a multiple of 7 ranks"),
        (["--gpu_memory_gb", "80", "--model.d_embeding", "7"], "did you mean model.d_embedding?"),
        (["nowhere.yaml", "--gpu_memory_gb", "80"], "nowhere.yaml"),
        (["some.yaml", "--nodes", "2"], "is planned for a GPU, --gpu_memory_gb 80"),
    ],
)
def test_errors_are_one_line(capsys, flags, said):
    with pytest.raises(SystemExit) as left:
        main(["plan", *flags])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert said in error


def test_help_tells_of_both_plans(capsys):
    for flags, said in (
        (["--help"], "--gpu_memory_gb 80 --ranks 8"),
        (["--gpu_memory_gb=80", "--help"], "--host_memory_gb"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["plan", *flags])
        assert left.value.code == 0
        assert said in capsys.readouterr().out
