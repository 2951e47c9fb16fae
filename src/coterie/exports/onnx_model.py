"""A team as an ONNX model: nodes for each part of ``Portable``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.errors import UsageError
from coterie.exports.portable import Portable
from coterie.extras import how_to_install

OPSET, IR = 18, 9
"""Versions of ONNX's operators and of its files that runtimes of the last years read."""


def model(team: Portable) -> bytes:
    """The file's bytes.

    Inputs: `observations` [B, N, O], `action_masks` bool [B, N, A] and, of recurrent teams,
    `hidden_state` [B, N, H]. Outputs: `actions` int64 [B, N], `outputs` [B, N, A] (logits or
    Q-values) and `hidden_state_after`. B is free: one episode or many at once.

    Raises:
        UsageError: the package onnx is missing.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise UsageError(f"ONNX needs the extra export: {how_to_install('export')}") from None
    graph = _Graph(helper, team)
    n, actions = team.arrays["available"].shape
    size, hidden = max(team.about["observation_sizes"]), team.about["hidden_size"]
    outputs, after = graph.network()
    mask = graph.node("And", ["action_masks", graph.constant("available")])
    lowest = graph.constant("lowest", np.array(-np.inf, np.float32))
    legal = graph.node("Where", [mask, outputs, lowest])
    graph.node("ArgMax", [legal], "actions", axis=-1, keepdims=0)
    graph.node("Identity", [outputs], "outputs")
    floats, info = TensorProto.FLOAT, helper.make_tensor_value_info
    inputs = [
        info("observations", floats, ["B", n, size]),
        info("action_masks", TensorProto.BOOL, ["B", n, actions]),
    ]
    results = [
        info("actions", TensorProto.INT64, ["B", n]),
        info("outputs", floats, ["B", n, actions]),
    ]
    if hidden:
        graph.node("Identity", [after], "hidden_state_after")
        inputs.append(info("hidden_state", floats, ["B", n, hidden]))
        results.append(info("hidden_state_after", floats, ["B", n, hidden]))
    made = helper.make_model(
        helper.make_graph(graph.nodes, "team", inputs, results, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="coterie",
    )
    helper.set_model_props(made, {name: json.dumps(x) for name, x in team.about.items()})
    onnx.checker.check_model(made)
    return made.SerializeToString()


class _Graph:
    """Nodes and constants, each with the name of what it makes."""

    def __init__(self, helper: Any, team: Portable) -> None:
        self._helper, self.team = helper, team
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, value: np.ndarray | None = None) -> str:
        from onnx import numpy_helper

        value = self.team.arrays[name] if value is None else value
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def network(self) -> tuple[str, str]:
        """Names of the outputs and of the hidden state after them."""
        arrays, x = self.team.arrays, "observations"
        if "mean" in arrays:
            centred = self.node("Sub", [x, self.constant("mean")])
            scaled = self.node("Div", [centred, self.constant("std")])
            bounds = [self.constant(f"limit_{b}", np.array(b, np.float32)) for b in (-10, 10)]
            x = self.node("Clip", [scaled, *bounds])
        if "ids" in arrays:
            batch = self.node("Slice", [self.node("Shape", [x]), *self._numbers([0], [1])])
            shape = self.node("Concat", [batch, *self._numbers(arrays["ids"].shape)], axis=0)
            ids = self.node("Expand", [self.constant("ids"), shape])
            x = self.node("Concat", [x, ids], axis=-1)
        for k in range(self.team.layers - 1):
            x = self._linear(f"layer_{k}", x)
            if f"norm_{k}_scale" in arrays:
                x = self._norm(k, x)
            x = self.node({"tanh": "Tanh", "relu": "Relu"}[self.team.about["activation"]], [x])
        after = x = self._gru(x) if self.team.about["hidden_size"] else x
        return self._linear(f"layer_{self.team.layers - 1}", x), after

    def _numbers(self, *values: Sequence[int]) -> list[str]:
        made = len(self.constants)
        return [
            self.constant(f"numbers_{made + k}", np.array(value, np.int64))
            for k, value in enumerate(values)
        ]

    def _linear(self, name: str, x: str) -> str:
        """Each agent's row through its own matrix: [B, N, 1, I] times [N, I, J]."""
        (axis,) = self._numbers([2])
        row = self.node("Unsqueeze", [x, axis])
        product = self.node("MatMul", [row, self.constant(f"{name}_weight")])
        return self.node(
            "Add", [self.node("Squeeze", [product, axis]), self.constant(f"{name}_bias")]
        )

    def _norm(self, k: int, x: str) -> str:
        (axis,) = self._numbers([-1])
        centred = self.node("Sub", [x, self.node("ReduceMean", [x, axis])])
        square = self.node("Mul", [centred, centred])
        least = self.constant(f"least_{k}", np.array(1e-5, np.float32))
        variance = self.node("Add", [self.node("ReduceMean", [square, axis]), least])
        scaled = self.node("Div", [centred, self.node("Sqrt", [variance])])
        scaled = self.node("Mul", [scaled, self.constant(f"norm_{k}_scale")])
        return self.node("Add", [scaled, self.constant(f"norm_{k}_shift")])

    def _gru(self, x: str) -> str:
        parts = {}
        for name, state in (("gru_input", x), ("gru_hidden", "hidden_state")):
            parts[name] = [f"{name}_{gate}" for gate in ("reset", "update", "new")]
            gates = self._linear(name, state)
            made = self._helper.make_node("Split", [gates], parts[name], axis=-1, num_outputs=3)
            self.nodes.append(made)
        pairs = list(zip(*parts.values(), strict=True))[:2]
        reset, update = (self.node("Sigmoid", [self.node("Add", pair)]) for pair in pairs)
        new = self.node("Mul", [reset, parts["gru_hidden"][2]])
        new = self.node("Tanh", [self.node("Add", [parts["gru_input"][2], new])])
        # (1 − u) · new + u · h = new + u · (h − new)
        change = self.node("Mul", [update, self.node("Sub", ["hidden_state", new])])
        return self.node("Add", [new, change])
