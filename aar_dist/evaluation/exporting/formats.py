"""The two formats: how a model is traced, written, and asked again from its file.

WindowModel -> trace -> write_torch, write_onnx -> file -> ask_torch, ask_onnx: (B, T, C) -> (B, …)

Both hold a JSON of what goes in and what comes out; neither holds a pickle.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.exporting.windowed import WindowModel

Floats = NDArray[np.float32]
Ask = Callable[[Floats], Floats]
ABOUT = "aar_dist"
"""Name of the JSON inside an ONNX file."""
ABOUT_FILE = "aar_dist.json"
"""And inside a .pt2."""
INPUT = "values"
TRACED = 3
"""Windows in the batch that a program is traced with: no size that anything else has."""
ONNX_NEEDS = ("onnx", "onnxscript", "onnxruntime")
ONNX_LARGEST = 2_000_000_000
"""Bytes: one file of ONNX is one message of protobuf, which ends at 2 GiB."""


def trace(model: WindowModel) -> ExportedProgram:
    """The program, for any number of windows at once."""
    with torch.no_grad(), quiet():
        model(model.example())  # what a model makes once and keeps must be there before: a trace would keep a shadow
        program = torch.export.export(
            model, (model.example(TRACED),), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}}, strict=False
        )
    program.example_inputs = None  # they would be the one pickle in the file
    return program


def write_torch(program: ExportedProgram, about: Mapping[str, Any], path: Path) -> None:
    """Write a .pt2."""
    torch.export.save(program, path, extra_files={ABOUT_FILE: json.dumps(about)})


def ask_torch(path: Path) -> Ask:
    """The program in a .pt2, from the file alone."""
    program = torch.export.load(path).module()

    def ask(values: Floats) -> Floats:
        with torch.inference_mode():
            said: Floats = program(torch.from_numpy(values)).numpy()
        return said

    return ask


def check_onnx(n_bytes: int) -> None:
    """Raise ``ConfigError`` if no ONNX can be written: packages that are not installed, weights that do not fit."""
    lacking = [name for name in ONNX_NEEDS if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"export onnx needs {', '.join(lacking)}: pip install 'aar_dist[onnx]', or export torch")
    if n_bytes > ONNX_LARGEST:
        raise ConfigError(
            f"the weights are {n_bytes / 1e9:.1f} GB and one file of ONNX holds {ONNX_LARGEST / 1e9:.0f}; export torch"
        )


def write_onnx(program: ExportedProgram, about: Mapping[str, Any], path: Path) -> None:
    """Write a .onnx of the operator set that torch recommends."""
    with quiet():
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[about["output"]]
        )
    assert made is not None, "torch returns a program where it is given one"
    _name_batch(made.model)
    made.model.metadata_props[ABOUT] = json.dumps(about)
    made.save(path, external_data=False)


def ask_onnx(path: Path) -> Ask:
    """The file in onnxruntime on the CPU, in one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def ask(values: Floats) -> Floats:
        said: Floats = session.run(None, {INPUT: values})[0]
        return said

    return ask


def _name_batch(model: Any) -> None:
    """Call the free dimension ``batch``, wherever it stands alone."""
    free = str(model.graph.inputs[0].shape[0])
    values = [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if str(size) == free:
                value.shape[axis] = "batch"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to itself what exporters tell of their own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
