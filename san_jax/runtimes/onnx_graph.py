"""An ONNX graph while it is built: nodes in order, constants by name; the libraries that this needs."""

import collections
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from san_jax.errors import UserError
from san_jax.weights.saving import rounded

OPSET, IR = 17, 8  # of 2022: read by onnxruntime from 1.12 on
LARGEST = 2**31 - 1  # bytes of a protobuf message

Shape = Sequence[int | str]


def library(name: str) -> ModuleType:
    """Imports `onnx`, `onnxruntime` or one of their modules, which come with an extra.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = name.split(".")[0]
        raise UserError(f"ONNX needs {missing}, which is not installed; pip install 'san_jax[onnx]'") from error


class Graph:
    """Nodes, each with one output, which has the node's name.

    Attributes:
      dtype: to which float constants are rounded; `to` changes it for those that follow.
    """

    def __init__(self):
        self.dtype = np.dtype(np.float32)
        self._onnx = library("onnx")
        self._nodes, self._constants, self._outputs = [], {}, []

    def add(self, kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Appends a node; returns the name of its output, which is `name`."""
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: Shaped[np.ndarray, "..."]) -> str:
        """Adds a constant, integers as they are; returns its name.

        Raises:
          UserError: one of the values is too large for float16.
        """
        if values.dtype.kind == "f":
            halved = self.dtype == np.float16
            values = rounded(name, values.astype(np.float32)) if halved else values.astype(np.float32)
        return self.exact_constant(name, values)

    def exact_constant(self, name: str, values: Shaped[np.ndarray, "..."]) -> str:
        """Adds a constant in its own dtype; returns its name."""
        self._constants[name] = np.ascontiguousarray(values)
        return name

    def to(self, dtype: type[np.floating], x: str, *, name: str) -> str:
        """Goes on in float16 or float32: `x` in that dtype, as are the constants from here on."""
        if self.dtype == dtype:
            return x
        self.dtype = np.dtype(dtype)
        return self.cast(dtype, x, name=name)

    def cast(self, dtype: type[np.generic], x: str, *, name: str) -> str:
        """The values of `x` in another dtype."""
        return self.add("Cast", x, name=name, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def output(self, x: str, *, name: str, dtype: type[np.generic], shape: Shape) -> None:
        """Makes the output of the last node, `x`, one of the graph's outputs, under a name of its own."""
        assert self._nodes[-1].output[0] == x
        self._nodes[-1].output[0] = name
        self._outputs.append(self._value(name, dtype, shape))

    def _value(self, name: str, dtype: type[np.generic], shape: Shape) -> Any:
        helper = self._onnx.helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    def model(
        self, *, name: str, dtype: type[np.generic], shape: Shape, notes: Mapping[str, str], what: str
    ) -> bytes:
        """The file's content: this graph with one input, checked by onnx.

        Args:
          name: of the input.
          dtype, shape: of the input.
          notes: the file's metadata.
          what: the file, for messages.

        Raises:
          UserError: it is too large for one ONNX file.
        """
        size = sum(values.nbytes for values in self._constants.values())
        if size > LARGEST - 2**20:  # the nodes take less than a MiB
            raise UserError(
                f"{what}: {size / 1e9:.1f} GB of weights, but an ONNX file holds 2 GB; export to .stablehlo"
            )
        onnx = self._onnx
        constants = [onnx.numpy_helper.from_array(values, name) for name, values in self._constants.items()]
        graph = onnx.helper.make_graph(
            self._nodes, "san_jax", [self._value(name, dtype, shape)], self._outputs, constants
        )
        opset = [onnx.helper.make_operatorsetid("", OPSET)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="san_jax")
        onnx.helper.set_model_props(model, dict(notes))
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def session(path: Path, **options: Any) -> Any:
    """An onnxruntime session on CPUs, silent but for errors; `options` are fields of its SessionOptions.

    Raises:
      UserError: onnxruntime is not installed, or cannot read the file.
    """
    runtime = library("onnxruntime")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    try:
        return runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base class
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"onnxruntime cannot read {path} ({reason}); export it again") from error


def counts(content: bytes) -> dict[str, int]:
    """How many nodes of each kind a serialised model has, most frequent first."""
    nodes = library("onnx").load_model_from_string(content).graph.node
    return dict(collections.Counter(node.op_type for node in nodes).most_common())
