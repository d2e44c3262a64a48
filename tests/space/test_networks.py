"""Networks of a space that lists channels, against brute force."""

import itertools

import numpy as np
import pytest

from fbnet.errors import InputError
from fbnet.space import compact, count, extreme, parse, walk, with_heads
from fbnet.space.modeldef import entry, read, render, to_space


def networks(space) -> list[tuple[int, ...]]:
    """All paths whose cells agree in channels, as numbers of candidates."""
    found = [()]
    for index, layer in enumerate(space.layers):
        ends = [space.layers[index - 1][path[-1]].c_out if path else space.stem.c_out for path in found]
        found = [
            (*path, number)
            for path, channels in zip(found, ends, strict=True)
            for number, cell in enumerate(layer)
            if cell.c_in == channels
        ]
    return found


def test_networks_are_counted_and_named(elastic, tiny):
    every = networks(elastic)
    assert count(elastic) == len(every) == 4**4 * 2**3
    assert count(tiny) == 4**3
    names = [elastic.ops(numbers) for numbers in every]
    assert len(set(names)) == len(every)
    for numbers, ops in zip(every[::7], names[::7], strict=True):
        assert elastic.numbers(ops) == numbers
        assert parse(compact(ops, elastic), elastic) == ops
        cells = elastic.network_cells(ops, 10)
        assert all(before.c_out == after.c_in for before, after in itertools.pairwise(cells))


def test_the_best_and_the_least_network_of_all_are_found(elastic):
    rng = np.random.default_rng(0)
    every = networks(elastic)
    for _ in range(20):
        values = [rng.normal(size=len(layer)) for layer in elastic.layers]
        heads = rng.normal(size=2)
        folded = with_heads(elastic, values, heads)
        sums = {}
        for numbers in every:
            last = elastic.layers[-1][numbers[-1]]
            head = heads[[cell.c_in for cell in elastic.heads].index(last.c_out)]
            sums[numbers] = head + sum(row[number] for row, number in zip(values, numbers, strict=True))
        for which in (max, min):
            assert extreme(elastic, folded, which) == which(sums, key=sums.get)


def test_a_walk_is_offered_what_agrees(elastic):
    rng = np.random.default_rng(0)
    every = {*networks(elastic)}
    assert {walk(elastic, lambda _, numbers: int(rng.choice(numbers))) for _ in range(50)} < every


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k3_e1_c8 k3_e1_c24 k3_e1_c16 skip_c16", "layer 3 of space elastic gets 24 channels, and 'ir_k3_e1_c16' is for 16: all"),
        ("k3_e1 k3_e1_c24 k3_e1_c24 skip_c16", "layer 1 of space elastic has no operator 'ir_k3_e1'; it has ir_k3_e1_c8, ir_k3_"),
        ("k3_e1_c9 k3_e1_c24 k3_e1_c24 skip_c16", "layer 1 of space elastic has no operator 'ir_k3_e1_c9'"),
        ("k3_e7_c8 k3_e1_c24 k3_e1_c24 skip_c16", "unknown operator 'k3_e7_c8' for layer 1 (did you mean k3_e"),
    ],
)
def test_what_is_no_network_is_refused_in_a_sentence(elastic, text, message):
    with pytest.raises(InputError) as error:
        parse(text, elastic)
    assert message in str(error.value)


def test_channels_are_no_operators_where_they_are_no_choice(tiny):
    with pytest.raises(InputError, match="layer 1 of space tiny has no operator 'ir_k3_e1_c8'"):
        parse("k3_e1_c8 skip skip", tiny)


def test_a_model_definition_says_the_channels(elastic):
    ops = parse("k5_e3_c16 | k3_s2_c24 skip_c24 | k3_e1_c16", elastic)
    definition = read(render({"mine": entry(elastic, ops)}))["mine"]
    space, alone = to_space("mine", definition, elastic)
    cells, found = (which.network_cells(names, 10) for which, names in ((elastic, ops), (space, alone)))
    assert [cell.build_key for cell in found] == [cell.build_key for cell in cells]
    assert alone == ("ir_k5_e3", "ir_k3_s2", "skip", "ir_k3_e1")
