"""MODEL_ARCH entries: their form, and appending to files that people keep by hand."""

import ast

import pytest

from conftest import SPACES
from fbnet.errors import InputError
from fbnet.modeldef import append, entry, render
from fbnet.space import read_space

BY_HAND = '''# -*- coding: utf-8 -*-
"""Definitions, kept by hand — µ."""
import os
UNIT = "µs"; MODEL_ARCH = {
    # the first
    "old": {
        "block_op_type": [["skip"]],
        "block_cfg": {"first": [16, 2], "stages": [[[1, 16, 1, 1]]], "backbone": [num for num in range(23)]},
    }  # no comma, and one in the comment: ,
}


def helper():
    raise RuntimeError("this file must not be executed")


helper()
'''


def data(text):
    """The MODEL_ARCH of a file that holds nothing but data."""
    [assignment] = ast.parse(text).body
    return ast.literal_eval(assignment.value)


def test_an_entry_has_the_form_of_the_reference():
    space = read_space(SPACES / "fbnet_32.yaml")
    ops = ["ir_k3_s2", "ir_k5_e6", "skip", "ir_k3_e3", "ir_k5_s2", *["ir_k3_e1"] * 17]
    definition = data(render({"found": entry(space, ops)}))["found"]
    assert list(definition) == ["block_op_type", "block_cfg"]
    assert definition["block_op_type"] == [[op] for op in ops]
    assert definition["block_cfg"]["first"] == [16, 2]
    # expansion, channels, 1, stride: `_s2` means shuffle groups, so its expansion is 1
    assert definition["block_cfg"]["stages"][:6] == [
        [[1, 16, 1, 1]],
        [[6, 24, 1, 2]],
        [[1, 24, 1, 1]],
        [[3, 24, 1, 1]],
        [[1, 24, 1, 1]],
        [[1, 32, 1, 2]],
    ]
    assert definition["block_cfg"]["backbone"] == list(range(23))


@pytest.fixture
def entries(tiny):
    return {"new": entry(tiny, ["skip", "ir_k3_s2", "ir_k5_e3"])}


def test_appending_keeps_everything_else_and_executes_nothing(entries):
    text = append(BY_HAND, entries)
    head, tail = BY_HAND.split("    }  # no comma")
    assert text.startswith(head + "    },  # no comma, and one in the comment: ,\n")
    assert text.endswith(tail.partition("\n")[2])
    model_arch = ast.parse(text).body[3].value
    assert [key.value for key in model_arch.keys] == ["old", "new"]
    assert ast.literal_eval(model_arch.values[1]) == entries["new"]


@pytest.mark.parametrize(
    "text",
    [
        "MODEL_ARCH = {}\n",
        "MODEL_ARCH = {\n}",
        'MODEL_ARCH = {"a": 1}',
        'MODEL_ARCH = {"a": (1)  # c\n  , }  # d\n',
        'MODEL_ARCH = {\n    "a": (\n 1 )\n    # b\n}\n',
        'MODEL_ARCH = {\r\n    "a": 1,\r\n}\r\nB = 2\r\n',
        'X = "\u2028\x0c"; MODEL_ARCH = {"µ": "µ}"}\n',
    ],
)
def test_appending_to_any_layout(text, entries):
    before = _model_arch(text)
    after = _model_arch(append(text, entries))
    assert after == before | entries
    assert list(after)[-1] == "new"


def _model_arch(text):
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "MODEL_ARCH":
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        (BY_HAND, ["old"], "named old exists already"),
        ("MODEL_ARCH = {", ["new"], "not valid Python"),
        ("OTHER = {}", ["new"], "does so 0 times"),
        ("MODEL_ARCH = dict()", ["new"], "does so 0 times"),
        ("MODEL_ARCH = {}\nMODEL_ARCH = {}", ["new"], "does so 2 times"),
        ("MODEL_ARCH = {}", ['x": 1}; import os  #'], "must be a Python identifier"),
        ("MODEL_ARCH = {}", ["class"], "must be a Python identifier"),
        ("MODEL_ARCH = {}", [""], "must be a Python identifier"),
        ("\x00", ["new"], "not valid Python"),
    ],
)
def test_what_cannot_be_appended_is_refused(text, names, message, entries):
    with pytest.raises(InputError, match=message):
        append(text, dict.fromkeys(names, entries["new"]))
