"""Configurations: the defaults, and at least forty wrong ones, each refused in a sentence before any job starts."""

import copy
import json
import re
import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, SPACES, TINY
from fbnet.architecture.rules import RULES
from fbnet.config import check_yaml, resolve
from fbnet.errors import InputError
from fbnet.evaluation import network_sets
from fbnet.space.search_space import find_space

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))


def test_config_yaml_spells_out_the_defaults():
    written = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    assert resolve({}, SCHEMA) == resolve(written, SCHEMA)
    keys = re.findall(r"^\s*(\w+):", (ROOT / "config.yaml").read_text(encoding="utf-8"), re.M)
    for part in (SCHEMA, *SCHEMA["$defs"].values()):
        assert not properties(part) - set(keys) - {"table"}, "a key is missing in config.yaml"


@pytest.mark.parametrize("part", ["race", "evaluation"])
def test_every_rule_may_be_chosen(part):
    assert SCHEMA["properties"][part]["properties"]["rules"]["items"]["enum"] == list(RULES)


def properties(schema):
    own = schema.get("properties", {})
    return set(own).union(*(properties(part) for part in own.values()))


def test_every_key_of_config_yaml_is_commented():
    for line in (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*\w+: \S", line) and not line.startswith(" " * 4):
            assert "#" in line or re.search(r"(fbnet: \{\}|batch_size)", line), line


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_valid(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for target in (config.get("latency") or {}).values():
        if "table" in (target or {}):
            (tmp_path / target["table"]).touch()
    folder = config["dataset"].get("folder") if "dataset" in config else None
    for place in ("train/a", "train/b", "test/a", "test/b") if folder else ():
        (tmp_path / folder / place).mkdir(parents=True)
    resolve(config, SCHEMA)


def test_a_search_overrides_single_keys():
    config, _ = resolve({"searches": {"a": {"loss": {"alpha": 0.5}}, "b": {}}}, SCHEMA)
    assert config["searches"]["a"]["loss"] == config["searches"]["b"]["loss"] | {"alpha": 0.5}
    assert config["searches"]["b"] == config["search"]


def test_a_front_is_a_search_for_each_of_its_points_and_one_supernet():
    latency = {"phone": {}, "server": {}}
    on_phone = {"method": "one_shot", "target": "phone"}
    searches = {
        "a": on_phone | {"front": {"phone": ["4ms", "12ms"], "points": 3}, "budgets": {"params": "1M"}},
        "b": on_phone | {"front": {"params": ["200k", "1M"], "points": 2}, "latency_budget": "5ms"},
        "c": on_phone | {"front": {"server": ["500us", "2ms"], "points": 2}},
    }
    config, _ = resolve({"latency": latency, "searches": searches}, SCHEMA)
    found = {name: (search["latency_budget"], search["budgets"]) for name, search in config["searches"].items()}
    assert found == {
        "a_4ms": ("4ms", {"params": "1M"}),
        "a_8ms": ("8ms", {"params": "1M"}),
        "a_12ms": ("12ms", {"params": "1M"}),
        "b_200k": ("5ms", {"params": "200k"}),
        "b_1000k": ("5ms", {"params": "1000k"}),
        "c_500us": (None, {"server": "500us"}),
        "c_2000us": (None, {"server": "2000us"}),
    }
    assert {*config["supernets"].values()} == {"a"}
    config, _ = resolve({"search": {"front": {"cpu": ["1ms", "2ms"], "points": "2"}}, "searches": {"a": {}, "b": {}}}, SCHEMA)
    assert list(config["searches"]) == ["a_1ms", "a_2ms", "b_1ms", "b_2ms"]
    with pytest.raises(InputError, match="searches is empty"):
        resolve({"search": {"epochs": []}, "searches": {}}, SCHEMA)


def test_one_shot_searches_that_agree_in_training_share_a_supernet_whatever_they_choose_for():
    sweep = {"method": "one_shot", "target": ["cpu", "gpu"], "latency_budget": ["4ms", "8ms"]}
    searches = {"one": sweep, "seeds": sweep | {"seed": [0, 1], "target": "cpu"}, "more": {"method": "one_shot", "target": "gpu"}}
    searches["fbnet"] = {"latency_budget": ["4ms", "8ms"]}
    config, _ = resolve({"latency": {"cpu": {}, "gpu": {"device": "cuda"}}, "searches": searches}, SCHEMA)
    found = config["supernets"]
    assert list(found) == list(config["searches"])
    assert {name: found[name] for name in found if name.startswith(("one", "more"))} == dict.fromkeys(
        ("one_cpu_4ms", "one_cpu_8ms", "one_gpu_4ms", "one_gpu_8ms", "more"), "one"
    )
    # seed 0 is that of `one`
    assert [found[f"seeds_{budget}_seed_{seed}"] for budget in ("4ms", "8ms") for seed in (0, 1)] == ["one", "seeds_seed_1"] * 2
    assert all(found[name] == name for name in found if name.startswith("fbnet"))


def test_a_name_that_a_supernet_of_fbnet_has_is_taken():
    searches = {"a": {"method": ["fbnet", "one_shot"], "target": ["cpu", "gpu"]}, "a_one_shot": {"method": "fbnet"}}
    config, _ = resolve({"latency": {"cpu": {}, "gpu": {}}, "searches": searches}, SCHEMA)
    assert config["supernets"]["a_one_shot_cpu"] == config["supernets"]["a_one_shot_gpu"] == "a_one_shot_cpu"


def test_a_race_of_one_or_of_random_samples_is_refused():
    race = {"race": {"epochs": [1], "rules": []}}
    resolve(race, SCHEMA)
    for key, value in (("method", "softmax"), ("judged", 5)):
        with pytest.raises(InputError, match=rf"sample.{key} is {value!r}, but a race \(race.epochs\) takes the most probable"):
            resolve(race | {"sample": {"count": 2, key: value}}, SCHEMA)
    with pytest.raises(InputError, match=r"a race needs two architectures: raise race.entrants"):
        resolve({"race": race["race"] | {"entrants": 1, "learned": 0}}, SCHEMA)
    with pytest.raises(InputError, match=r"race.learned is 1, but race.entrants 4: fewer than 5 tell nothing"):
        resolve({"race": race["race"] | {"entrants": 4, "learned": 1}}, SCHEMA)


def test_text_stands_for_the_number_that_is_wanted():
    """--config 'search={epochs: 3}' arrives as text, and so does 1e-4 from YAML."""
    given = yaml.safe_load(
        "{dataset: {checksum: 'null'}, search: {epochs: '20', theta: {weight_decay: 1e-4}, augment: {flip: 'false'}}}"
    )
    config, _ = resolve(given, SCHEMA)
    assert config["dataset"]["checksum"] is None
    assert config["search"]["epochs"] == 20
    assert config["search"]["theta"]["weight_decay"] == 0.0001
    assert config["search"]["augment"]["flip"] is False


def changed(keys, value):
    config = copy.deepcopy(TINY)
    *parents, last = keys.split(".")
    part = config
    for key in parents:
        part = part.setdefault(key, {})
    part[last] = value
    return config


WRONG = [
    # (keys, value, what the sentence must name)
    ("epochs", 3, "epochs is no known key"),
    ("serch", {}, "serch is no known key (did you mean search?)"),
    ("results", "", "results is empty"),
    ("results", 3, "results is 3, but must be a text"),
    ("results", "a{b}", "results is 'a{b}'"),
    ("dataset", None, "dataset is empty"),
    ("dataset.name", "imagenet", "dataset.name is 'imagenet', but must be one of cifar10, digits, image_folder"),
    ("dataset.url", "ftp://x/y", "dataset.url is 'ftp://x/y'"),
    ("dataset.url", 1, "dataset.url is 1"),
    ("dataset.url", [], "dataset.url is empty, but must be a text or a list of addresses, each of which starts with http://"),
    ("dataset.url", ["https://x/y", "ftp://x/y"], "dataset.url.1 is 'ftp://x/y', but must be a text that starts with http://"),
    ("dataset.checksum", "abc", "dataset.checksum is 'abc'"),
    ("dataset.checksum", "md5:xyz", "like md5:"),
    ("dataset.archive", "none.tar.gz", "dataset.archive is 'none.tar.gz', but there is no such file"),
    ("dataset.folder", "nowhere", "dataset.folder is 'nowhere', but there is no such folder"),
    ("dataset.colour", True, "dataset.colour is no known key"),
    ("dataset", {"name": "image_folder"}, "dataset.folder is not set"),
    ("dataset", {"name": "image_folder", "folder": "."}, "must hold train/ and test/"),
    ("dataset", {"name": "cifar10"}, "which takes 16×16 images, but cifar10 has 32×32"),
    (
        "space",
        "large",
        "space is 'large', but must be fbnet_224, fbnet_224_1504, fbnet_32, fbnet_32_050, fbnet_all, fbnet_cifar, fbnet_small, "
        "fbnet_small_64, tiny, or a YAML file",
    ),
    ("space", 5, "space is 5, but must be a text"),
    ("space", "unknown_op.yaml", "candidates names an unknown operator 'ir_k4_e1'"),
    ("space", "no_op.yaml", "candidates is []"),
    ("space", "broken.yaml", "broken.yaml is not valid"),
    ("space", "config.yaml", "unknown key 'results'"),
    ("latency", {}, "latency is empty"),
    ("latency", ["cpu"], "latency is ['cpu'], but must be a mapping"),
    ("latency.my phone", {}, "latency has the name 'my phone', but a name must be"),
    ("latency.cpu.device", "tpu", "latency.cpu.device is 'tpu', but must be one of cpu, cuda"),
    ("latency.cpu.threads", 0, "latency.cpu.threads is 0, but must be a whole number at least 1"),
    ("latency.cpu.threads", "all", "latency.cpu.threads is 'all'"),
    ("latency.cpu.runs", 1, "latency.cpu.runs is 1, but must be a whole number at least 3"),
    ("latency.cpu.runs", 2.5, "latency.cpu.runs is 2.5"),
    ("latency.cpu", {"table": "none.tsv"}, "latency.cpu.table is 'none.tsv', but there is no such file"),
    ("latency.cpu", {"table": "config.yaml", "runs": 3}, "names a table and also runs"),
    (
        "latency.cpu",
        {"table": "config.yaml", "validation": "no.tsv"},
        "validation is 'no.tsv', but there is no such file",
    ),
    (
        "latency.cpu",
        {"validation": "config.yaml"},
        "validation is for a table from elsewhere, but cpu is measured here",
    ),
    ("latency.cpu.engine", "tvm", "latency.cpu.engine is 'tvm', but must be one of torch, onnxruntime, command, analytic"),
    ("latency.cpu", {"engine": "onnxruntime", "dtype": "bfloat16"}, "measured on the cpu in float32 or int8 only"),
    ("latency.cpu", {"dtype": "int8"}, "latency.cpu: dtype is 'int8', but that is for engine 'onnxruntime'"),
    (
        "latency.cpu",
        {"engine": "onnxruntime", "allocator": "plain"},
        "latency.cpu: allocator is 'plain', but that is for PyTorch",
    ),
    ("latency.cpu", {"mode": "graphs"}, "latency.cpu: mode is 'graphs', but CUDA graphs need device 'cuda'"),
    ("latency.cpu", {"dtype": "float16"}, "latency.cpu: dtype is 'float16', but the cpu computes in"),
    ("latency.cpu.precision", 0, "latency.cpu.precision is 0"),
    ("latency.cpu.batch", 0, "latency.cpu.batch is 0, but must be a whole number at least 1"),
    ("new_measurement", "ask", "new_measurement is 'ask', but must be one of compare, accept, refuse"),
    ("validation.networks", 3, "validation.networks is 3, but must be a whole number at least 4"),
    ("validation.error", 0, "validation.error is 0"),
    ("validation.strict", "maybe", "validation.strict is 'maybe'"),
    ("search.target", "phone", "target is 'phone', but must be a name under latency: cpu"),
    ("search.epochs", 0, "search.epochs is 0, but must be a whole number at least 1"),
    ("search.epochs", "ten", "search.epochs is 'ten'"),
    ("search.epochs", True, "search.epochs is True"),
    ("search.epoch", 3, "search.epoch is no known key (did you mean epochs?)"),
    ("search.warmup_epochs", 2, "warmup_epochs is 2, but must be less than epochs (2)"),
    ("search.warmup_epochs", -1, "search.warmup_epochs is -1"),
    ("search.batch_size", 1, "search.batch_size is 1"),
    ("search.batch_size", 288, "batch_size is 288, but must be at most 287"),
    ("search.weight_share", 1.0, "search.weight_share is 1.0, but must be a number above 0 and below 1"),
    ("search.seed", -1, "search.seed is -1"),
    ("search.theta_init", "random", "search.theta_init is 'random'"),
    ("search.weights.lr", 0, "search.weights.lr is 0, but must be a number above 0"),
    ("search.weights.lr", "fast", "search.weights.lr is 'fast'"),
    ("search.weights.lr", float("inf"), "search.weights.lr is inf, but must be a finite number"),
    ("search.weights.lr", float("nan"), "search.weights.lr is nan"),
    ("search.weights.momentum", 1.0, "search.weights.momentum is 1.0"),
    ("search.theta.weight_decay", -0.1, "search.theta.weight_decay is -0.1"),
    ("search.theta.momentum", 0.9, "search.theta.momentum is no known key"),
    ("search.temperature.start", 0, "search.temperature.start is 0"),
    ("search.loss.form", "latency", "search.loss.form is 'latency', but must be one of paper, target"),
    ("search.loss.alpha", 0, "search.loss.alpha is 0"),
    ("search.loss.form", "target", "neither loss.target_us nor latency_budget is set"),
    ("search.augment.flip", "yes please", "search.augment.flip is 'yes please', but must be true or false"),
    ("search.keep", "first", "search.keep is 'first'"),
    ("searches", {}, "searches is empty"),
    ("searches", {"a b": {}}, "searches has the name 'a b'"),
    ("searches", {"../a": {}}, "searches has the name '../a'"),
    ("searches", {"a; touch x": {}}, "searches has the name 'a; touch x'"),
    ("searches", {"first": {"alpha": 1}}, "searches.first.alpha is no known key"),
    ("searches", {"first": {"target": "phone"}}, "searches.first: target is 'phone'"),
    ("sample.method", "best", "sample.method is 'best', but must be one of argmax, softmax"),
    ("sample.count", 0, "sample.count is 0"),
    ("search.latency_budget", "8", "searches.first: latency_budget is '8"),
    ("search.latency_budget", 8, "must be a latency with its unit (8ms, 8500us)"),
    ("search.latency_budget", "0.5 * k3_e6", "latency_budget is '0.5 * k3_e6', but"),
    ("search.latency_budget", "fbnet_a", "latency_budget is 'fbnet_a', but stage 2 of space tiny"),
    ("search.budgets", {"parms": "1M"}, "searches.first: budgets has 'parms', but may limit macs, params, memory, size"),
    ("search.budgets", {"params": "1MB"}, "budgets.params is '1MB', but must be a number above 0 with its unit, as 1.5M or 800k"),
    ("search.budgets", {"memory": 500_000}, "budgets.memory is '500000', but must be a number above 0 with its unit, as 500kB"),
    ("search.budgets", {"cpu": "8ms"}, "budgets.cpu is the latency on its own target: set latency_budget to '8ms' in its place"),
    ("search.front", {"cpu": ["4ms"]}, "searches.first.front is {'cpu': ['4ms']}, but must be one budget from least to most"),
    ("search.front", {"cpu": ["4ms", "2ms"]}, "searches.first.front.cpu is ['4ms', '2ms'], but must be two amounts with their"),
    ("search.front", {"cpu": ["4ms", "0.5 * k3_e6"]}, "must be two amounts with their units, the less one first"),
    ("search.front", {"cpu": ["4ms", "8ms"], "points": 1}, "front.points is 1, but must be a whole number from 2 to 100"),
    ("search.seed", [], "searches.first.seed is [], but a list must hold one value or more"),
    ("search.seed", [[0]], "searches.first.seed is [[0]]"),
    ("searches", {"first": {"seed": [0, 0]}}, "two searches would have the name first_seed_0"),
    ("searches", {"first": {"loss": {"beta": [0.1, -1]}}}, "searches.first_beta_1.loss.beta is -1"),
    ("searches", {"first": {"sed": [0, 1]}}, "searches.first_sed_0.sed is no known key (did you mean seed?)"),
    ("searches", {"random_x": {}}, "searches has the name 'random_x', but a name must be"),
    ("searches", {"rule_macs": {}}, "searches has the name 'rule_macs', but a name must be"),
    ("searches", {"ranked_cpu": {}}, "nor with random_, ranked_, rule_ or published_, which name baselines"),
    ("searches", {"published_x": {}}, "which name baselines"),
    ("train.epochs", 2, "train.warmup_epochs is 2, but must be less than train.epochs (2)"),
    ("train.batch_size", 1200, "train.batch_size is 1200, but validation_share 0.2 leaves only 1150"),
    ("train.validation_share", 0, "train.validation_share is 0"),
    ("train.schedule", "linear", "train.schedule is 'linear', but must be one of cosine, steps"),
    ("train.drops", 90, "train.drops is 90, but must be a list"),
    ("train.start", "supernet", "a comparison needs one recipe for all: set evaluation.random to 0, evaluation.ranked to 0, "),
    ("train.momentum", 0, "needs a momentum"),
    ("evaluation.trainings", 0, "evaluation.trainings is 0"),
    ("evaluation.ranked", -1, "evaluation.ranked is -1, but must be a whole number at least 0"),
    ("evaluation.rules", "macs", "evaluation.rules is 'macs', but must be a list"),
    ("evaluation.rules", ["flops"], "evaluation.rules.0 is 'flops', but must be one of macs, log_macs"),
    ("evaluation.rules", ["macs", "macs"], "evaluation.rules is ['macs', 'macs'], but must be a list"),
    ("evaluation.published", "all", "evaluation.published is 'all', but must be true or false or a list"),
    ("race.epochs", [0], "race.epochs.0 is 0, but must be a whole number at least 1"),
    ("race.epochs", [1], "race.rules is ['macs', 'log_macs'], but searches.first has no latency_budget"),
    ("race", {"epochs": [1], "rules": [], "start": "seed"}, "race.start is 'seed', but must be one of scratch, supernet"),
    ("threads", 0, "threads is 0"),
    (
        "space",
        "listed.yaml",
        "searches.first: method is 'fbnet', whose theta chooses operators alone, but space listed",
    ),
]


@pytest.fixture
def spaces_of_a_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = yaml.safe_load((SPACES / "tiny.yaml").read_text(encoding="utf-8"))
    (tmp_path / "unknown_op.yaml").write_text(yaml.safe_dump(tiny | {"candidates": ["ir_k4_e1"]}), encoding="utf-8")
    (tmp_path / "no_op.yaml").write_text(yaml.safe_dump(tiny | {"candidates": []}), encoding="utf-8")
    listed = tiny | {"stages": [{"layers": 1, "channels": [8, 16], "stride": 1}]}
    (tmp_path / "listed.yaml").write_text(yaml.safe_dump(listed), encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("results: r", encoding="utf-8")


@pytest.mark.parametrize(("keys", "value", "message"), WRONG, ids=[f"{keys}={value}" for keys, value, _ in WRONG])
def test_a_wrong_config_is_one_sentence_with_key_and_value(spaces_of_a_user, keys, value, message):
    with pytest.raises(InputError) as error:
        resolve(changed(keys, value), SCHEMA, look=True)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


NONE = {"random": 0, "ranked": 0, "rules": [], "published": False}


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [
        ({"random": 1}, "set evaluation.random to 0, or train.start to scratch"),
        ({"ranked": 1}, "set evaluation.ranked to 0, or"),
        ({"rules": ["macs"]}, "set evaluation.rules to [], or"),
        ({"published": True}, "set evaluation.published to false, or"),
        ({"published": ["fbnet_a"], "rules": ["macs"]}, "set evaluation.rules to [], evaluation.published to false, or"),
    ],
)
def test_a_supernet_to_start_from_allows_no_baseline_and_names_it(wanted, remedy):
    config = {"space": "fbnet_32", "train": {"start": "supernet"}, "evaluation": NONE}
    resolve(config, SCHEMA)
    with pytest.raises(InputError, match=r"^train\.start is 'supernet', but baselines have no supernet to start") as error:
        resolve(config | {"evaluation": NONE | wanted}, SCHEMA)
    assert remedy in str(error.value)


def test_a_teacher_needs_supernets_whose_largest_network_knows_the_labels_and_allows_no_baseline():
    config = {"space": "fbnet_32", "train": {"teacher": 0.5}, "evaluation": NONE, "search": {"method": "one_shot"}}
    assert resolve(config, SCHEMA)[0]["train"]["start"] == "scratch"
    resolve(config | {"train": {"teacher": 0.5, "start": "supernet"}}, SCHEMA)
    for changes, message in (
        ({"evaluation": NONE | {"ranked": 2}}, "train.teacher is 0.5, but baselines have no supernet to learn from"),
        ({"evaluation": NONE | {"ranked": 2}}, "set evaluation.ranked to 0, or train.teacher to 0"),
        ({"searches": {"a": {}, "b": {"method": "fbnet"}}}, "the largest network of searches.b has not learned the labels"),
        ({"train": {"teacher": 1.1}}, "train.teacher is 1.1, but must be a number at least 0 and at most 1"),
    ):
        with pytest.raises(InputError) as error:
            resolve(config | changes, SCHEMA)
        assert message in str(error.value)


TEXTS = ["", "8ms", "0.5 * fbnet_a", "a b", "; touch x", "{}", "\n"]
PLAIN = [None, True, 0, -1, 1.5, 1e-4, *TEXTS, [], {}, [0, 1], [[0]]]
VALUES = st.one_of(
    st.sampled_from(PLAIN),
    st.lists(st.sampled_from([0, 1, "8ms", None, {}, []]), max_size=2),
    st.dictionaries(st.sampled_from(["seed", "loss", "beta", "cpu", "name"]), st.sampled_from(PLAIN), max_size=2),
)


def refusal(config) -> str:
    try:
        resolved, space = resolve(config, SCHEMA)
        network_sets(resolved, space)
    except InputError as error:
        return str(error)
    return ""


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_config_is_resolved_or_refused_in_a_sentence(data):
    config = copy.deepcopy(TINY)
    for _ in range(data.draw(st.integers(1, 3))):
        part = config
        while True:
            keys = [*map(str, part), "latency_budget", "seed", "loss", "nonsense"]
            key = data.draw(st.sampled_from(keys))
            if not isinstance(part.get(key), dict) or not part[key] or data.draw(st.booleans()):
                break
            part = part[key]
        part[key] = data.draw(VALUES)
    assert "\n" not in refusal(config).strip()


def test_lists_are_a_search_for_each_combination():
    given = {
        "latency": {"cpu": {}, "macs": {"engine": "analytic"}},
        "search": {"seed": [0, 1], "epochs": 20},
        "searches": {
            "a": {"loss": {"beta": [0.3, 0.6]}},
            "b": {"sampling": ["soft", "single_path"], "seed": 5},
            "c": {"seed": [7]},
        },
    }
    config, _ = resolve(given, SCHEMA)
    assert list(config["searches"]) == [
        *("a_seed_0_beta_0_3", "a_seed_0_beta_0_6", "a_seed_1_beta_0_3", "a_seed_1_beta_0_6"),
        *("b_soft", "b_single_path"),
        "c_seed_7",
    ]
    assert config["searches"]["a_seed_1_beta_0_6"] == config["search"] | {
        "seed": 1,
        "loss": config["search"]["loss"] | {"beta": 0.6},
    }
    assert config["searches"]["b_single_path"]["seed"] == 5
    assert all(search["epochs"] == 20 for search in config["searches"].values())


def test_there_are_forty_wrong_configs():
    assert len(WRONG) >= 40


@pytest.mark.parametrize("config", [None, [], "text", 3])
def test_a_config_that_is_no_mapping_is_refused(config):
    with pytest.raises(InputError, match="configuration is empty"):
        resolve(config, SCHEMA)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("searches:\n  a: {}\n  b: {}\n  a: {seed: 1}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: the key 'a' is there 2 times"):
        check_yaml(path)


def test_a_space_goes_by_name_or_by_path(tmp_path):
    assert find_space("tiny") == SPACES / "tiny.yaml"
    own = tmp_path / "own.yaml"
    own.write_text((SPACES / "tiny.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert find_space(str(own)) == own


def test_a_path_may_begin_with_the_home_of_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("base: tiny\n", encoding="utf-8")
    for name in ("table.tsv", "cifar.tar.gz"):
        (tmp_path / name).touch()
    for split in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "images" / split).mkdir(parents=True)
    command = "~/bin/time -m {model} 'a ~ b' --out=~/x ~/'my log'"
    there = {"engine": "command", "command": command, "pattern": "(?P<latency>.)"}
    as_it_is = there | {"command": "time  {model} 'a  ~' b~"}
    config = {
        "results": "~/my results",
        "space": "~/own.yaml",
        "dataset": {"name": "image_folder", "folder": "~/images"},
        "latency": {"cpu": {}, "brought": {"table": "~/table.tsv"}, "there": there, "as_it_is": as_it_is},
    }
    resolved, space = resolve(config, SCHEMA)
    assert resolved["results"] == f"{tmp_path}/my results"
    assert (resolved["space"], space.resolution) == (f"{tmp_path}/own.yaml", 16)
    assert resolved["dataset"]["folder"] == f"{tmp_path}/images"
    assert resolved["latency"]["brought"]["table"] == f"{tmp_path}/table.tsv"
    words = [f"{tmp_path}/bin/time", "-m", "{model}", "a ~ b", "--out=~/x", f"{tmp_path}/my log"]
    assert shlex.split(resolved["latency"]["there"]["command"]) == words
    assert resolved["latency"]["as_it_is"]["command"] == as_it_is["command"]
    assert config["results"] == "~/my results"
    archive, _ = resolve({"dataset": {"archive": "~/cifar.tar.gz"}, "results": "./~x"}, SCHEMA)
    assert archive["dataset"]["archive"] == f"{tmp_path}/cifar.tar.gz"
    assert archive["results"] == "./~x"
    with pytest.raises(InputError, match=r"results is '~nobody here/x', but ~nobody here is no user's home here"):
        resolve({"results": "~nobody here/x"}, SCHEMA)


def test_pins_envs_and_ranges_agree():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8").lower(), re.M))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").lower()
    ranges = dict(re.findall(r'"([\w.-]+)>=([\d.]+)"', project))
    assert len(ranges) >= 13
    for name, least in ranges.items():
        assert version(pins[name]) >= version(least), name
    for path in (ROOT / "workflow/envs").glob("*.yaml"):
        *_, pip = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
        for requirement in pip["pip"]:
            name, pin = requirement.split("==")
            assert pins[name] == pin, f"{path.name}: {name}"


def version(text):
    return tuple(map(int, text.split(".")))


def test_all_that_is_wrong_with_a_folder_of_images_is_said_before_the_first_job(tmp_path):
    for half, name, count in (("train", "cat", 60), ("train", "dog", 3), ("val", "cat", 1), ("train", "fox", 0)):
        (tmp_path / half / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / half / name / f"{number}.jpg").touch()
    config = {"dataset": {"name": "image_folder", "folder": str(tmp_path)}, "results": str(tmp_path / "results")}
    with pytest.raises(InputError) as error:
        resolve(config, SCHEMA, look=True)
    for part in (
        "there is no test/, but val/: rename it",
        "train/fox holds no image",
        "searches.fbnet: batch_size is 192, but must be at most 13: weight_share 0.8 leaves that many of the 63 training images",
        "train.batch_size is 128, but validation_share 0.1 leaves only 57 of the 63 training images",
    ):
        assert part in str(error.value)
    resolve(config, SCHEMA)  # a job of a cluster does not look through them again
    (tmp_path / "results/data/image_folder").mkdir(parents=True)
    description = {"train": 100, "source": {"folder": str(tmp_path)}}
    (tmp_path / "results/data/image_folder/dataset.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(InputError, match=r"^searches.fbnet: batch_size is 192, but must be at most 20: .* of the 100 training"):
        resolve(config, SCHEMA)
