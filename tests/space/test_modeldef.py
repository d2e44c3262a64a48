"""MODEL_ARCH entries: their form, and appending to files that people keep by hand."""

import ast
import keyword
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fbnet.errors import InputError
from fbnet.network import Network
from fbnet.space import CANDIDATES, read_space
from fbnet.space.modeldef import append, entry, read, render, to_space

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
    space = read_space("fbnet_32")
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


REFERENCE_FORM = """
MODEL_ARCH = {
    "sample": {
            "block_op_type": [
            ["ir_k5_e6"],
            ["ir_k3_e6"], ["skip"],
            ["ir_k3_sep"],
            ],
            "block_cfg": {
                "first": [16, 2],
                "stages": [
                    [[6, 16, 1, 1]],                    # stage 1
                    [[3, 24, 1, 2]],  [[1, 24, 1, 1]],  # the name says e6, and counts
                    [[4, 24, 1, 2]],
                ],
                "backbone": [num for num in range(23)],
            },
        },
    "repeated": {
        "block_op_type": [["ir_k3", "ir_k3", "ir_k5"]],
        "block_cfg": {"first": [8, 2, 3], "stages": [[[2, 16, 2, 2], [3, 24, 1, 1]]], "backbone": [0]},
    },
    "unknown": {"block_op_type": [["quant_a2_w2"]], "block_cfg": {"first": [8, 2], "stages": [[[1, 8, 1, 1]]], "backbone": [0]}},
}
"""


def test_a_file_of_the_reference_is_read_and_its_networks_are_built():
    entries = read(REFERENCE_FORM)
    assert list(entries) == ["sample", "repeated", "unknown"]
    assert entries["sample"]["block_cfg"]["backbone"] == list(range(23))
    base = read_space("fbnet_32")
    space, ops = to_space("sample", entries["sample"], base)
    assert ops == ("ir_k5_e6", "ir_k3_e6", "skip", "ir_k3_sep")
    assert space.stages == (1, 2, 1)
    assert [(c.c_in, c.c_out, c.stride, c.expansion) for c in space.path(ops)] == [
        (16, 16, 1, 6),
        (16, 24, 2, 6),
        (24, 24, 1, 1),
        (24, 24, 2, 4),
    ]
    assert (space.resolution, space.head.c_out) == (32, 1504)
    assert Network(space, ops, 10).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)

    space, ops = to_space("repeated", entries["repeated"], base)
    assert [(c.op, c.c_in, c.c_out, c.stride, c.expansion) for c in space.path(ops)] == [
        ("ir_k3", 8, 16, 2, 2),
        ("ir_k3", 16, 16, 1, 2),
        ("ir_k5", 16, 24, 1, 3),
    ]
    with pytest.raises(InputError, match=r"entry unknown: .* unknown operator 'quant_a2_w2'"):
        to_space("unknown", entries["unknown"], base)


def test_what_is_read_is_written_again():
    entries = read(REFERENCE_FORM)
    assert read(render(entries)) == entries
    assert render(read(render(entries))) == render(entries)


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))


@settings(deadline=None)
@given(st.data())
def test_any_architecture_survives_the_file(data):
    space = read_space({"base": "fbnet_all", "expansion": data.draw(st.integers(1, 8))})
    ops = tuple(data.draw(st.sampled_from(CANDIDATES)) for _ in range(22))
    entries = dict.fromkeys(data.draw(st.lists(names, min_size=1, max_size=3, unique=True)), entry(space, ops))
    assert read(render(entries)) == entries
    assert read(append(BY_HAND.replace("old", "0"), entries)) == read(BY_HAND.replace("old", "0")) | entries
    for name in entries:
        again, ops_again = to_space(name, entries[name], space)
        assert ops_again == ops
        assert again.stages == space.stages
        assert again.network_cells(ops, 10) == space.network_cells(ops, 10)
        assert entry(again, ops) == entries[name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # an escape sequence that Python does not know
@settings(deadline=None)
@given(st.data())
def test_a_mutated_file_is_read_or_refused_in_one_sentence(data):
    text = REFERENCE_FORM
    pieces = [
        "]",
        "{",
        '"skip"',
        "23",
        "-1",
        "print(1)",
        "open('executed', 'w')",
        "None",
        "1e400",
        "*x",
        "for",
        "lambda: 0",
        "µ",
        "\\",
        "\x00",
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 6))
        text = text[:at] + data.draw(st.sampled_from(pieces)) + text[at + length :]
    message = ""
    try:
        for name, definition in read(text).items():
            space, ops = to_space(name, definition, read_space("fbnet_32"))
            assert len(ops) == len(space.layers)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert not Path("executed").exists()


ENTRY = '{"block_op_type": [["skip"]], "block_cfg": {"first": [8, 2], "stages": [[[1, 8, 1, 1]]], "backbone": [0]}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('MODEL_ARCH = {"a": print(1)}', "line 1: 'print(1)' is no plain data; it is not executed"),
        ('\nMODEL_ARCH = {\n"a": [__import__("os").system("touch executed")]}', 'line 3: "__import__'),
        ('MODEL_ARCH = {"a": [n for n in range(23) if print(n)]}', "is no plain data"),
        ('MODEL_ARCH = {"a": [print(n) for n in range(23)]}', "is no plain data"),
        ('MODEL_ARCH = {"a": [m for n in range(23)]}', "is no plain data"),
        ('MODEL_ARCH = {"a": [n for n in range(10**12)]}', "is no plain data"),
        ('MODEL_ARCH = {"a": [n for n in range(1000000000)]}', "is no plain data"),
        ('MODEL_ARCH = {"a": ["ir_k3"] * 2}', "line 1: \"['ir_k3'] * 2\" is no plain data"),
        ("MODEL_ARCH = {**{}}", "every key must be a text"),
        ("MODEL_ARCH = {1: 2}", "every key must be a text"),
        ('MODEL_ARCH = {"a": 1,\n"a": 2}', "line 2: the key 'a' is there twice"),
        ('MODEL_ARCH = {"a": -"x"}', "is no plain data"),
        (f"MODEL_ARCH = {'{'}'a': {'[' * 500}{']' * 500}{'}'}", "not valid Python"),
    ],
)
def test_what_is_no_plain_data_is_refused_and_not_executed(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        read(text)
    assert message in str(error.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"first": [8, 2]', '"first": [8]', "entry a: block_cfg.first must be [channels, stride]"),
        ('"first": [8, 2]', '"first": [8, 2, 5]', "block_cfg.first has kernel size 5, but the stem's is 3"),
        ('"first": [8, 2]', '"first": [8, 3]', "entry a: stem.stride is 3"),
        ('"first": [8, 2]', '"last": [8, 2]', "block_cfg must be a mapping with the keys backbone, first, stages"),
        ("[[1, 8, 1, 1]]", "[[1, 8, 1]]", "block_cfg.stages[0] must be a list of [expansion, channels, layers, stride]"),
        ("[[1, 8, 1, 1]]", "[[1, 8, 2, 1]]", "block_op_type[0] must be a list of 2 operator names"),
        ("[[1, 8, 1, 1]]", "[[1, 8, 1, -2]]", "block_cfg.stages[0] must be"),
        ("[[[1, 8, 1, 1]]]", "[]", "block_cfg.stages must be a list as long as block_op_type, which has 1 parts"),
        ('["skip"]', '["os.system"]', "block_op_type[0] must be a list of 1 operator names"),
        ('["skip"]', '["ir_k3_e9"]', "stages[1], layer 1: candidates names an unknown operator 'ir_k3_e9' (did you mean"),
        ('"backbone": [0]', '"backbone": [1]', "block_cfg.backbone leaves out 0"),
        (ENTRY, "3", "entry a: the entry must be a mapping with the keys block_cfg, block_op_type"),
    ],
)
def test_an_entry_of_another_form_is_refused_with_the_place(old, new, message):
    text = f'MODEL_ARCH = {{"a": {ENTRY}}}'
    assert old in text
    with pytest.raises(InputError) as error:
        to_space("a", read(text.replace(old, new))["a"], read_space("tiny"))
    assert message in str(error.value)
