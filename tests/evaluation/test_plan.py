"""What an evaluation compares: the sets of networks, their names, and which searches share them."""

import pytest
import yaml

from conftest import ROOT, TINY
from fbnet.config import resolve
from fbnet.errors import InputError
from fbnet.evaluation import network_sets

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
BUDGET = {"latency_budget": "8ms"}


def sets_of(searches, space="fbnet_32", latency=None, **evaluation):
    config = {"space": space, "latency": latency or {"cpu": {}}, "searches": searches, "evaluation": evaluation}
    return network_sets(*resolve(config, SCHEMA))


def of_kind(sets, kind):
    return {name: entry for name, entry in sets.items() if entry.kind == kind}


def test_a_budget_has_its_rules_and_random_networks_and_a_target_its_ranked_ones():
    sets = sets_of({"a": BUDGET}, random=8, ranked=10)
    assert {name: entry.kind for name, entry in sets.items()} == {
        "a": "found",
        "rule_macs_cpu_8ms": "rule",
        "rule_log_macs_cpu_8ms": "rule",
        "random_cpu_8ms": "random",
        "ranked_cpu": "ranked",
    }
    assert {entry.target for entry in sets.values()} == {"cpu"}
    assert {entry.baseline for name, entry in sets.items() if name != "ranked_cpu"} == {"cpu_8ms"}
    for name, rule in (("rule_macs_cpu_8ms", "macs"), ("rule_log_macs_cpu_8ms", "log_macs")):
        assert (sets[name].networks, sets[name].rule, sets[name].budget) == ((name,), rule, "8ms")
    assert sets["random_cpu_8ms"].networks == tuple(f"random_cpu_8ms_{number}" for number in range(1, 9))
    ranked = sets["ranked_cpu"]
    assert ranked.networks == ("ranked_cpu_1", "ranked_cpu_2")  # with the 8 they are 10
    assert (ranked.budgets, ranked.budget, ranked.baseline) == (("8ms",), None, None)


def test_there_are_no_ranked_ones_where_the_random_ones_are_enough():
    for ranked in (0, 7, 8):
        assert not of_kind(sets_of({"a": BUDGET}, random=8, ranked=ranked), "ranked")
    two = sets_of({"a": BUDGET, "b": {"latency_budget": "9ms"}}, random=8, ranked=17)
    assert two["ranked_cpu"].networks == ("ranked_cpu_1",)  # the random ones of both budgets count
    assert two["ranked_cpu"].budgets == ("8ms", "9ms")


def test_without_budgets_ranked_ones_have_no_limit_and_the_others_that_of_the_search():
    sets = sets_of({"a": {}, "b": BUDGET}, random=2, ranked=5)
    assert sets["ranked_cpu"].budgets == ()
    own = [sets[name] for name in ("rule_macs_like_a", "rule_log_macs_like_a", "random_like_a")]
    assert {(entry.like, entry.budget) for entry in own} == {("a", None)}
    assert {(entry.like, entry.budget) for entry in of_kind(sets, "rule").values()} == {("a", None), (None, "8ms")}


def test_rules_need_no_random_networks():
    sets = sets_of({"a": BUDGET}, random=0, ranked=0, rules=["log_macs"])
    assert list(sets) == ["a", "rule_log_macs_cpu_8ms"]
    assert list(sets_of({"a": BUDGET}, random=0, ranked=0, rules=[])) == ["a"]
    assert list(sets_of({"a": BUDGET}, random=0, ranked=3, rules=[])) == ["a", "ranked_cpu"]


def test_searches_of_one_target_and_budget_share_baselines():
    searches = {"a": BUDGET, "b": BUDGET | {"seed": 1}, "other": BUDGET | {"target": "gpu"}}
    sets = sets_of(searches, latency={"cpu": {}, "gpu": {"engine": "analytic"}}, random=2, ranked=5)
    assert sets["a"].baseline == sets["b"].baseline == "cpu_8ms"
    assert list(of_kind(sets, "rule")) == [
        f"rule_{rule}_{target}_8ms" for target in ("cpu", "gpu") for rule in ("macs", "log_macs")
    ]
    assert list(of_kind(sets, "random")) == ["random_cpu_8ms", "random_gpu_8ms"]
    assert {name: len(entry.networks) for name, entry in of_kind(sets, "ranked").items()} == {"ranked_cpu": 3, "ranked_gpu": 3}


def test_a_sweep_of_budgets_and_targets_has_names_to_read():
    latency = {"cpu": {}, "onnx": {"engine": "onnxruntime"}}
    sweep = {"target": ["cpu", "onnx"], "latency_budget": ["8ms", "0.5 * fbnet_a"], "loss": {"form": "target"}}
    sets = sets_of({"a": sweep}, latency=latency)
    assert list(of_kind(sets, "found")) == ["a_cpu_8ms", "a_cpu_0_5_fbnet_a", "a_onnx_8ms", "a_onnx_0_5_fbnet_a"]
    slugs = ["cpu_8ms", "cpu_0_5_fbnet_a", "onnx_8ms", "onnx_0_5_fbnet_a"]
    assert list(of_kind(sets, "random")) == [f"random_{slug}" for slug in slugs]
    assert [entry.baseline for entry in of_kind(sets, "found").values()] == slugs
    assert sets["ranked_onnx"].budgets == ("8ms", "0.5 * fbnet_a")
    assert {entry.method for entry in of_kind(sets, "found").values()} == {"a"}  # they differ in target and budget alone


def test_searches_that_differ_in_seed_target_or_budget_alone_are_of_one_method():
    sweep = {"seed": [0, 1], "latency_budget": ["8ms", "9ms"]}
    sets = sets_of({"soft": sweep | {"sampling": "soft"}, "path": sweep | {"sampling": "single_path"}, "alone": {"epochs": 20}})
    methods = {}
    for name, entry in of_kind(sets, "found").items():
        methods.setdefault(entry.method, []).append(name)
    assert set(methods) == {"soft", "path", "alone"}
    assert [len(names) for names in methods.values()] == [4, 4, 1]
    assert {entry.method for entry in sets.values() if entry.kind != "found"} == {None}


def test_names_of_methods_differ():
    same = {"first": {}, "second": {"seed": 1}}  # nothing in common to be called by
    assert {entry.method for entry in of_kind(sets_of(same), "found").values()} == {"first"}
    swept = {"a": {"seed": [0, 1], "loss": {"beta": [0.3, 0.6]}}}
    found = of_kind(sets_of(swept), "found")
    assert {name: entry.method for name, entry in found.items()}.keys() == {
        *("a_seed_0_beta_0_3", "a_seed_0_beta_0_6", "a_seed_1_beta_0_3", "a_seed_1_beta_0_6")
    }
    assert found["a_seed_0_beta_0_3"].method == found["a_seed_1_beta_0_3"].method
    assert len({entry.method for entry in found.values()}) == 2


def test_published_networks_are_there_on_demand():
    none = {"random": 0, "ranked": 0, "rules": []}
    sets = sets_of({"fbnet": {}}, **none, published=True)
    assert list(sets) == ["fbnet", "published_cpu"]
    assert {"published_fbnet_a", "published_fbnet_c", "published_mobilenet_v2_like"} <= set(sets["published_cpu"].networks)
    assert "published_fbnet_b_2019" not in sets["published_cpu"].networks  # it has an operator that the space lacks
    assert sets_of({"fbnet": {}}, **none, published=["fbnet_a"])["published_cpu"].networks == ("published_fbnet_a",)
    for name in ("fbnet_b_2019", "fbnet_x"):
        with pytest.raises(InputError, match=f"evaluation.published names '{name}', but .* can express are fbnet_a"):
            sets_of({"fbnet": {}}, published=[name])
    tiny = network_sets(*resolve(TINY | {"evaluation": none | {"published": True}}, SCHEMA))
    assert list(tiny) == ["first"]  # the space expresses none
