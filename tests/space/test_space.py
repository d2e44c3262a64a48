"""Search spaces: derived shapes, bases, layer-by-layer choices, and what is refused when a space is read."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SPACES
from fbnet.errors import InputError
from fbnet.space import CANDIDATES, OPERATORS, make_space, read_space
from fbnet.space.search_space import scaled


@pytest.mark.parametrize(
    ("name", "final", "head", "candidates"),
    [
        ("fbnet_cifar", 4, 1504, 9),
        ("fbnet_32", 1, 1504, 9),
        ("fbnet_224", 7, 1984, 9),
        ("fbnet_224_1504", 7, 1504, 9),
        ("fbnet_all", 4, 1504, 39),
    ],
)
def test_spaces_have_22_layers_and_end_where_they_say(name, final, head, candidates):
    space = read_space(name)
    assert space.name == name
    assert [len(layer) for layer in space.layers] == [candidates] * 22
    assert space.stages == (1, 4, 4, 4, 4, 4, 1)
    assert [layer[0].c_out for layer in space.layers] == [16] + [c for c in (24, 32, 64, 112, 184) for _ in range(4)] + [352]
    assert (space.head.height, space.head.width, space.head.c_out) == (final, final, head)
    assert "base" not in space.definition
    assert make_space(json.loads(json.dumps(space.definition))) == space


def test_every_space_can_be_read():
    for path in SPACES.glob("*.yaml"):
        assert read_space(path) == read_space(path.stem)


def test_candidates_and_expansion_may_differ_by_stage_and_by_layer(tiny):
    stages = [
        {"layers": 1, "channels": 8, "stride": 1, "candidates": "all", "expansion": 2},
        {"layers": 2, "channels": 16, "stride": 2, "candidates": [["ir_k3", "skip"], ["ir_k3"]], "expansion": [3, 5]},
        {"layers": 2, "channels": 16, "stride": 1},
    ]
    space = make_space(tiny.definition | {"stages": stages})
    assert [cell.op for cell in space.layers[0]] == list(CANDIDATES)
    assert [[cell.op for cell in layer] for layer in space.layers[1:3]] == [["ir_k3", "skip"], ["ir_k3"]]
    assert [layer[0].expansion for layer in space.layers[1:3]] == [3, 5]
    assert {cell.op: cell.expansion for cell in space.layers[0]} == {
        name: 2 if OPERATORS[name].expansion is None else OPERATORS[name].expansion for name in CANDIDATES
    }
    assert [[cell.op for cell in layer] for layer in space.layers[3:]] == [tiny.definition["candidates"]] * 2
    assert space.stages == (1, 2, 2)


def test_width_scales_stem_and_stages_up_to_multiples_of_8(tiny):
    assert [scaled(channels, 0.35) for channels in (16, 24, 32, 64, 112, 184, 352)] == [8, 16, 16, 24, 40, 72, 128]
    assert [scaled(channels, 1.0) for channels in (12, 16)] == [12, 16]
    assert scaled(80, 0.7) == 56  # 80 · 0.7 is 56.00000000000001 or less by the arithmetic of the machine
    space = make_space(tiny.definition | {"width": 1.5})
    assert [space.stem.c_out, *(layer[0].c_out for layer in space.layers), space.head.c_out] == [16, 16, 24, 24, 32]


def test_one_listed_number_of_channels_is_no_choice(tiny):
    stages = [stage | {"channels": [stage["channels"]]} for stage in tiny.definition["stages"]]
    listed = make_space(tiny.definition | {"stages": stages})
    assert (listed.layers, listed.heads, listed.elastic) == (tiny.layers, tiny.heads, False)


def test_layers_have_a_cell_for_each_operator_and_channels_that_may_meet(elastic):
    pairs = [list(dict.fromkeys((cell.c_in, cell.c_out) for cell in layer)) for layer in elastic.layers]
    assert pairs[0] == [(8, 8), (8, 16)]
    assert pairs[1] == [(8, 24), (8, 16), (16, 24), (16, 16)]
    assert pairs[2] == [(24, 24), (16, 16)]
    assert pairs[3] == [(24, 16), (24, 24), (16, 16), (16, 24)]
    assert [len(layer) for layer in elastic.layers] == [4 * len(some) for some in pairs]
    assert [(cell.c_in, cell.c_out) for cell in elastic.heads] == [(16, 32), (24, 32)]
    assert elastic.head == elastic.heads[1]
    assert [cell.choice for cell in elastic.layers[0][:3]] == ["ir_k3_e1_c8", "ir_k3_e1_c16", "ir_k3_s2_c8"]
    wide = make_space(elastic.definition | {"width": 2})
    assert {cell.c_out for cell in wide.layers[1]} == {48, 32}


def test_a_space_laid_over_a_base(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("base: tiny\nresolution: 20\n", encoding="utf-8")
    over = read_space({"base": str(own), "norm": "gn4"})
    assert (over.name, over.resolution, over.stem.norm, len(over.layers)) == ("mine", 20, "gn4", 3)
    assert read_space('{"base": "tiny", "width": 2}').layers[0][0].c_out == 16
    own.write_text(f"base: {own}\n", encoding="utf-8")
    with pytest.raises(InputError, match="is based on itself"):
        read_space(own)
    own.write_text("base: [tiny]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"base is \['tiny'\], but must name a search space"):
        read_space(own)


STAGE = {"layers": 1, "channels": 8, "stride": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": []}, "stages[1], layer 1: candidates is []"),
        ({"candidates": "some"}, "candidates is 'some', but must be all, or a list"),
        ({"candidates": ["ir_k3_e9"]}, "did you mean ir_k3_e"),
        ({"candidates": ["skip", "skip"]}, "names skip 2 times"),
        ({"candidates": ["pool_fc"]}, "unknown operator 'pool_fc'"),
        ({"candidates": ["ir_k3"]}, "stages[1], layer 1: ir_k3 takes its expansion from the stage: add the key expansion"),
        ({"candidates": ["ir_k3"], "expansion": "e6"}, "stages[1].expansion is 'e6'"),
        ({"candidates": "all", "expansion": 6, "stages": [STAGE | {"channels": 18}]}, "18 channels do not divide into 4 groups"),
        ({"stages": [STAGE | {"candidates": [["skip"], ["skip"]]}]}, "candidates is given layer by layer, for 2 layers, but the"),
        ({"stages": [STAGE | {"candidates": ["skip", ["skip"]]}]}, "candidates is given layer by layer, for 2 layers, but the"),
        ({"stages": [STAGE | {"candidates": ["skip", 3]}]}, "unknown operator 3"),
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": True}, "resolution is True"),
        ({"stem": {"channels": 8}}, "stem lacks the key 'stride'"),
        ({"stem": {"channels": 8, "stride": 3}}, "stem.stride is 3"),
        ({"stages": []}, "stages must be a list"),
        (
            {"stages": [STAGE | {"channels": 9}]},
            "stages[1], layer 1: ir_k3_s2 cannot be built for 8 → 9 channels, 8×8, stride 1: 9",
        ),
        (
            {"stages": [STAGE | {"channels": []}]},
            "stages[1].channels is [], but must be a whole number, or a list of at least one",
        ),
        ({"stages": [STAGE | {"channels": [8, 16, 8]}]}, "stages[1].channels is [8, 16, 8], which has 8 more than once"),
        ({"stages": [STAGE | {"channels": [8, "16"]}]}, "stages[1].channels is '16', but must be a whole number"),
        ({"stages": [STAGE | {"channels": [8, 7]}]}, "ir_k3_s2 cannot be built for 8 → 7 channels"),
        (
            {"width": 0.5, "stages": [STAGE | {"channels": [24, 32]}]},
            "stages[1].channels is [24, 32], which, multiplied by width 0.5 and rounded, has 16 more than once",
        ),
        ({"stages": [STAGE | {"layers": 0}]}, "stages[1].layers is 0"),
        (
            {"stages": [STAGE | {"stride": 4}] * 3},
            "stages[2], layer 2: ir_k3_e1 cannot be built for 8 → 8 channels, 2×2, stride 4",
        ),
        ({"head": {"channels": "many"}}, "head.channels is 'many'"),
        ({"tail": 1}, "unknown key 'tail'"),
        ({"width": 0}, "width is 0, but must be a number from 0.01"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"classes": 0}, "classes is 0"),
        ({"norm": "batch"}, "norm is 'batch', but must be bn, frozen, none, or gn"),
        ({"norm": "gn0"}, "norm is 'gn0'"),
        ({"norm": None}, "norm is None"),
        (
            {"norm": "gn3"},
            "stem: conv_k3 cannot be built for 3 → 8 channels, 16×16, stride 2: 8 channels do not divide into the 3",
        ),
        ({"norm": "gn8", "head": {"channels": 36}}, "head: conv_k1 cannot be built for 16 → 36"),
        ({"name": 3}, "name is 3"),
    ],
)
def test_a_wrong_space_is_refused_when_it_is_read(change, message):
    definition = {"name": "tiny"} | yaml.safe_load((SPACES / "tiny.yaml").read_text(encoding="utf-8"))
    with pytest.raises(InputError) as error:
        make_space(definition | change)
    assert message in str(error.value)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*CANDIDATES, "all", "gn4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["layers", "channels", "stride", "x"]), inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.data())
def test_a_mutated_space_is_a_space_or_one_sentence(data):
    definition = {"name": "tiny"} | yaml.safe_load((SPACES / "tiny.yaml").read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from([definition, *(s for s in [definition.get("stem")] if isinstance(s, dict))]))
        if isinstance(definition.get("stages"), list) and definition["stages"] and data.draw(st.booleans()):
            part = definition["stages"][0]
        if isinstance(part, dict):
            keys = [*part, "candidates", "expansion", "width", "dropout", "norm", "classes"]
            part[data.draw(st.sampled_from(keys))] = data.draw(values)
    message = ""
    try:
        space = make_space(definition)
    except InputError as error:
        message = str(error)
    else:
        assert len(space.layers) == sum(space.stages)
        assert all(cell.height >= 1 for cell in space.cells(10))
    assert "\n" not in message
