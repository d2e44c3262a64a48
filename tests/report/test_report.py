import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import make_report
import plot_search
from conftest import SPACES, write_table
from fbnet.errors import InputError
from fbnet.evaluation.words import milliseconds as in_findings
from fbnet.evaluation.words import rounded
from fbnet.latency import LatencyTable, read_table
from fbnet.report.devices import OnDevice, read_devices, side_by_side
from fbnet.report.diagram import stage_diagram
from fbnet.report.evaluation import Comparison, Evaluation, Finding, Order, read_evaluation, read_one_shot
from fbnet.report.evaluation_plots import accuracy_latency
from fbnet.report.latency_plots import heat_map
from fbnet.report.networks import LONG, Network, front, numbers, read_summary
from fbnet.report.picture import read_picture
from fbnet.report.ranking_plot import ranking_plot
from fbnet.report.search_plots import history, theta_strips
from fbnet.report.words import duration, milliseconds
from fbnet.space import read_space

OPS = ("ir_k3_e1", "ir_k5_e3", "skip")


def network(name="one", kind="found", **facts) -> Network:
    given = {"search": name if kind == "found" else "", "baseline": "", "seed": 0 if kind == "found" else None, "target": "cpu"}
    given |= {"budget_us": 3000.0, "ops": " ".join(OPS), "predicted_us": 2000.0, "measured_us": 2100.0, "level": 1.05}
    given |= {"latency_us": 2000.0, "macs": 10**6, "params": 10**5, "supernet_top1": 0.5, "trainings": 3, "top1": 0.9}
    given |= {"top1_sd": 0.01, "validation_top1": 0.91, "search_s": 100.0, "training_s": 50.0}
    given |= {"rule": None, "drawn": None, "pool": None}
    return Network(network=name, kind=kind, **given | facts)


def on_devices(**chosen) -> list[OnDevice]:
    """Networks, each by its name, the target that it is chosen for and its operators, on all these targets."""
    shared = {"trainings": 3, "top1": 0.9, "top1_sd": 0.01, "validation_top1": 0.9, "macs": 10**6, "params": 10**5}
    rows = []
    for target in dict.fromkeys(target for target, _ in chosen.values()):
        for name, (own, ops) in chosen.items():
            here = {"budget_us": 3000.0, "measured_us": 2900.0, "latency_us": 2800.0, "within": name, "predicted_us": 2500.0}
            there = {"budget_us": None, "measured_us": None, "latency_us": None, "within": "", "predicted_us": 4500.0}
            facts = shared | {"int8_bytes": 123456, "ops": ops, "chosen_for": own}
            rows.append(OnDevice(target=target, network=name, **facts | (here if own == target else there)))
    return rows


def random_search(name="random_search_set", **facts) -> Network:
    return network(name, "random_search", **{"baseline": "set", "drawn": 3, "pool": 5, "training_s": None} | facts)


def comparison(against="random", verdict="better", baseline="set", **facts) -> Comparison:
    given = {
        "target": "cpu",
        "budget_us": 3000.0,
        "method": "soft",
        "networks": "one two",
        "top1": 0.9,
        "other": f"{against}_set",
    }
    given |= {"others": 5 if against == "random" else 1, "other_top1": 0.8, "difference": 0.0234, "half_width": 0.0161}
    given |= {"at_equal_latency": True}
    return Comparison(baseline=baseline, against=against, verdict=verdict, **given | facts)


def order(by="supernet", **facts) -> Order:
    given = {"target": "cpu", "search": "one" if by == "supernet" else "", "networks": 5, "tau": 0.4, "tau_by_chance": 0.8}
    return Order(by=by, **given | {"regret": 0.0123} | facts)


RANDOM = [
    network(f"r{at}", "random" if at < 3 else "ranked", baseline="set", ops=" ".join(ops))
    for at, ops in enumerate(
        [
            ("ir_k3_e1", "skip", "skip"),
            ("ir_k5_e3", "skip", "skip"),
            ("skip", "skip", "skip"),
            ("ir_k3_e1",) * 3,
            ("ir_k5_e3",) * 3,
        ]
    )
]
ONE_SHOT = {one.network: 0.1 + at / 20 for at, one in enumerate(RANDOM)}


def write_rows(path: Path, rows: list[dict], columns=()) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_search(folder: Path, name: str, epochs=3, ops=("ir_k3_e1", "ir_k3_s2", "ir_k5_e3", "skip")) -> SimpleNamespace:
    """Files of a search, and the arguments of plot_search for them."""
    folder.mkdir(exist_ok=True)
    theta = [
        {"epoch": epoch, "layer": layer, "op": op, "theta": -0.5, "probability": (1 + epoch * (at == 0)) / (len(ops) + epoch)}
        for epoch in range(epochs)
        for layer in (1, 2, 3)
        for at, op in enumerate(ops)
    ]
    rows = [
        {"epoch": epoch, "phase": phase, "latency_us": 2000 + epoch, "top1": 0.5}
        for epoch in range(epochs)
        for phase in ("weights", "theta", "argmax")
        if epoch or phase != "theta"
    ]
    write_rows(folder / "theta.tsv", theta)
    write_rows(folder / "history.tsv", rows)
    found = {"name": name, "ops": " ".join(OPS), "log_prob": -1.0, "latency_us": 2000.0, "macs": 10**6, "params": 10**5}
    return SimpleNamespace(
        search=folder,
        architectures=write_rows(folder / "architectures.tsv", [found]),
        space=str(SPACES / "tiny.yaml"),
        name=name,
        latency_budget=None,
        table=write_table(folder / "table.tsv", read_space(SPACES / "tiny.yaml")),
        classes=10,
        **{key: folder / f"{key}.svg" for key in ("theta", "history", "architecture")},
    )


def write_evaluation(folder: Path, networks=(), comparisons=(), orders=(), findings=(), devices=()) -> dict[str, Path]:
    """The tables of an evaluation, as pandas writes them: inf for what is not known, nothing for what is not defined."""
    rows = [vars(one) | {"half_width": "inf" if one.half_width is None else one.half_width} for one in comparisons]
    return {
        "summary": write_rows(folder / "summary.tsv", [vars(network) for network in networks or [network()]]),
        "comparisons": write_rows(folder / "comparisons.tsv", rows, Comparison.__annotations__),
        "ranking": write_rows(folder / "ranking.tsv", [vars(one) for one in orders], Order.__annotations__),
        "devices": write_rows(folder / "devices.tsv", [vars(one) for one in devices], OnDevice.__annotations__),
        "findings": write_rows(folder / "findings.tsv", [vars(Finding(*one)) for one in findings], Finding.__annotations__),
    }


@pytest.fixture
def report(tmp_path, tiny):
    """Make the page of an evaluation, and return its text."""

    def make(
        networks,
        findings=(),
        searches=("one",),
        targets=("cpu",),
        measured=True,
        comparisons=(),
        orders=(),
        devices=(),
        start="scratch",
    ):
        given = write_evaluation(tmp_path, networks, comparisons, orders, findings, devices) | {
            "space": str(SPACES / "tiny.yaml"),
            "classes": 10,
            "settings": json.dumps({"results": "results", "space": "tiny", "train": {"start": start}}),
            "target": [],
            "search": [],
            "scatter": tmp_path / "scatter.svg",
            "out": tmp_path / "report.html",
        }
        one_shot = [{"name": name, "ops": "", "supernet_top1": top1} for name, top1 in ONE_SHOT.items()]
        write_rows(tmp_path / "one_shot.tsv", one_shot)
        for target in targets:
            table = write_table(tmp_path / f"{target}.tsv", tiny)
            picture = tmp_path / f"{target}.svg"
            heat_map(read_table(table, tiny, 10), "Latency", picture)
            validation = tmp_path / f"{target}.validation.tsv"
            validation.write_text("# result: mean absolute percentage error (MAPE) 1.0%\n", encoding="utf-8")
            given["target"].append([target, table, picture, *((validation, picture) if measured else "--")])
        for at, name in enumerate(searches):
            arguments = write_search(tmp_path / f"search{at}", name)
            plot_search.main(arguments)
            given["search"].append([name, arguments.theta, arguments.history, arguments.architecture, tmp_path / "one_shot.tsv"])
        make_report.main(SimpleNamespace(**given))
        return given["out"].read_text(encoding="utf-8")

    return make


class _Page(HTMLParser):
    """What a browser would load, where links lead, and whether all elements are closed."""

    EMPTY = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.ids, self.tags, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.loads += [value for key, value in attributes.items() if key in ("src", "srcset", "data", "poster", "background")]
        self.links += [value for key, value in attributes.items() if key in ("href", "xlink:href", "action")]
        self.ids += [attributes[key] for key in ("id",) if key in attributes]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_its_links_stay_within_it(report):
    text = report(
        [network(), network("other", latency_us=3000.0, top1=0.95), *RANDOM, random_search()],
        comparisons=[comparison()],
        orders=[order()],
    )
    page = _Page(text)
    assert not page.open
    assert page.loads
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.loads)
    assert {f"#{name}" for name in page.ids} >= set(page.links)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text


def test_every_search_network_and_finding_is_there(report):
    networks = [network(name) for name in ("first", "second")]
    networks += [network("r1", "random", baseline="set"), network("fbnet_c", "published", ops="ir_k3_e1 " * 22)]
    findings = [(about, "comparison", f"Claim about {about}.") for about in ("all", "first", "second")]
    findings += [("second", "warning", 'It says "unsettled".'), ("all", "warning", "The machine was disturbed.")]
    text = report(networks, findings, ("first", "second"))
    for name in ("first", "second", "r1", "fbnet_c", "random_set"):
        assert f">{name}<" in text
    for sentence in ("Claim about all.", "Claim about second.", "It says &#34;unsettled&#34;.", "The machine was disturbed."):
        assert sentence in text
    places = [text.index(part) for part in ("<figure>", "The machine was disturbed.", "It says", "Claim about all.", ">r1<")]
    assert places == sorted(places)
    assert "mean absolute percentage error (MAPE) 1.0%." in text


def test_hostile_names_and_sentences_stay_text(report):
    bad = "<script>alert('1')</script>"
    networks = [network(bad), network(r"$\frac$", latency_us=3000.0), network("r", "random", baseline=bad)]
    compared = [comparison(networks=bad, method=bad), comparison(baseline=bad, method="other")]
    text = report(networks, [(bad, "warning", f"{bad} & <b>"), ("all", "comparison", bad)], (bad,), comparisons=compared)
    page = _Page(text)
    assert "script" not in page.tags
    assert text.count("&lt;script&gt;") > 3


def test_it_works_without_measurements_spread_baselines_and_findings(report):
    text = report([network(measured_us=None, level=None, top1_sd=None, trainings=1, budget_us=None, seed=None)], measured=False)
    assert "2.00 ms predicted; not measured" in text.replace("\xa0", " ")
    assert "of one training run each, so that their spread is not known" in text
    assert "±" not in text
    assert 'id="architectures"' not in text


def test_many_searches_on_two_targets_have_numbers_and_a_panel_each(report):
    networks = [
        network(f"s{at}", target=target, latency_us=1000.0 + 50 * at, top1=0.8 + at / 200)
        for at, target in enumerate(["cpu", "phone"] * 10)
    ]
    text = report(networks, searches=["s0"], targets=("cpu", "phone"))
    assert "On phone" in text
    assert text.count("<tr class=") == 20
    assert re.search(r'<td class="n">20</td>\s*<th scope="row">s19<', text)


def test_the_same_data_give_the_same_page(report, tmp_path):
    first = report([network(), network("other", latency_us=3000.0)], searches=())
    assert report([network(), network("other", latency_us=3000.0)], searches=()) == first


@pytest.mark.parametrize("epochs", [1, 90])
def test_pictures_of_a_search_are_the_same_bytes_each_time_and_carry_captions(tmp_path, epochs):
    pictures = []
    for folder in ("a", "b"):
        arguments = write_search(tmp_path / folder, "one & <two>", epochs)
        arguments.latency_budget = "1.99ms"
        plot_search.main(arguments)
        pictures.append([path.read_bytes() for path in (arguments.theta, arguments.history, arguments.architecture)])
    assert pictures[0] == pictures[1]
    for svg in pictures[0]:
        assert "http://www.w3.org/2000/svg" in ElementTree.fromstring(svg).tag
    captions = [read_picture(path).caption for path in (arguments.theta, arguments.history, arguments.architecture)]
    assert f"After epoch {epochs - 1}, " in captions[0]
    assert "above the budget" in captions[1]
    assert (
        captions[2]
        == "Of 3 layers, 1 is a skip (1 of them identities); of the kernels, 1 of 3×3, 1 of 5×5; the mean expansion is 2.0."
    )


def test_theta_caption_names_the_least_decided_layer(tmp_path):
    last = {"1": (0.9, 0.1), "2": (0.45, 0.55), "3": (0.3, 0.7)}
    rows = [
        {"epoch": 0, "layer": layer, "op": op, "probability": probability}
        for layer, pair in last.items()
        for op, probability in zip(("ir_k3_e1", "skip"), pair, strict=True)
    ]
    theta_strips(rows, "t", tmp_path / "t.svg")
    assert read_picture(tmp_path / "t.svg").caption.endswith("Layer 2 is the least decided: skip 0.55 against k3_e1 0.45.")


def test_a_space_of_all_operators_is_drawn(tmp_path):
    space = read_space("fbnet_all")
    names = [cell.op for cell in space.layers[1]]
    starts = (0, 22, len(names) - 17)  # in the last `skip`, the first of all names, stands where channels change
    ops = {f"part {start}": [names[(start + at) % len(names)] for at in range(22)] for start in starts}
    stage_diagram(ops, space, "all", tmp_path / "all.svg")
    text = (tmp_path / "all.svg").read_text(encoding="utf-8")
    for words in ("kernel 7×7", "4 groups", "squeeze-excite", "two depthwise", "shift", "basic block", "skip"):
        assert words in text


def test_heat_map_says_what_is_slowest(tmp_path, tiny):
    slow = (2000.0, *(10.0 for _ in tiny.layers[0][1:]))
    table = LatencyTable(tiny, (100.0, 100.0, 100.0), (slow, *(tuple(10.0 for _ in layer) for layer in tiny.layers[1:])))
    heat_map(table, "t", tmp_path / "t.svg")
    caption = read_picture(tmp_path / "t.svg").caption
    assert "0.330 ms to 2.32 ms" in caption.replace("\xa0", " ")
    assert "k3_e1 in layer 1, 2000 µs" in caption


def test_accuracy_picture_says_which_steps_are_not_significant(tmp_path):
    networks = [
        network("fast", latency_us=1000.0, top1=0.9),
        network("middle", "random", latency_us=2000.0, top1=0.905, baseline="set"),
        network("slow", latency_us=3000.0, top1=0.95),
        network("beaten", "published", latency_us=3500.0, top1=0.94),
    ]
    accuracy_latency(networks, "t", tmp_path / "t.svg")
    caption = read_picture(tmp_path / "t.svg").caption.replace("\xa0", " ")
    assert "from fast (1.00 ms, 90.00 ± 1.00%) to slow (3.00 ms, 95.00 ± 1.00%)" in caption
    assert "2 of its 3 networks are derived, and 1 of its 2 steps in accuracy is not significant (95 % confidence)" in caption
    assert "means of 3 training runs, error bars ± one standard deviation. Latencies are measured and rescaled." in caption
    assert "Test accuracies of 4 networks" in caption
    accuracy_latency([*networks, random_search(latency_us=500.0, top1=0.99, trainings=7)], "t", tmp_path / "t.svg")
    star = " A star is what a random search can expect to find, ± the standard deviation between such searches."
    assert read_picture(tmp_path / "t.svg").caption.replace("\xa0", " ").replace(star, "") == caption
    for trainings, chance in ((2, True), (3, False)):  # t of 2 degrees of freedom is 4.3, of 4 it is 2.8
        pair = [network("a", trainings=trainings), network("b", latency_us=3000.0, top1=0.93, trainings=trainings)]
        accuracy_latency(pair, "t", tmp_path / "t.svg")
        assert ("not significant" in read_picture(tmp_path / "t.svg").caption) == chance


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_front_is_what_no_other_network_beats(points):
    networks = [network(str(at), latency_us=float(us), top1=top1 / 6) for at, (us, top1) in enumerate(points)]
    beaten = {
        one.network
        for one in networks
        for other in networks
        if other.latency_us <= one.latency_us
        and other.top1 >= one.top1
        and (other.latency_us, other.top1) != (one.latency_us, one.top1)
    }
    best = front(networks)
    assert {one.network for one in best} == {one.network for one in networks} - beaten
    assert np.all(np.diff([one.latency_us for one in best]) >= 0)


def test_every_kind_and_rule_has_its_own_words_in_the_legend(tmp_path):
    kinds = [network(), network("m", "rule", rule="macs"), network("l", "rule", rule="log_macs"), random_search(), *RANDOM]
    accuracy_latency(kinds, "t", tmp_path / "t.svg")
    drawn = (tmp_path / "t.svg").read_text(encoding="utf-8")
    for words in ("derived", "rule: the most MACs", "rule: the largest Σ log MACs", "random search"):
        assert f"{words} (n = 1)" in drawn
    assert "random (n = 3)" in drawn
    assert "random, over all budgets (n = 2)" in drawn


def test_names_are_replaced_by_numbers_where_they_are_many_or_long():
    assert numbers([network("n" * LONG)]) == {}
    assert numbers([network("n" * LONG + "n", latency_us=9.0), network("a", latency_us=3.0)]) == {"a": 1, "n" * LONG + "n": 2}


def test_it_says_from_what_networks_were_trained(report):
    assert "1 derived architecture was trained from what the supernet has learned: 3" in report([network()], start="supernet")


def test_a_random_search_is_in_the_table_but_no_network(report):
    text = report([network(), random_search(latency_us=500.0, top1=0.99, trainings=9, drawn=7)])
    assert "1 derived architecture was trained from scratch: 3 training runs in all" in text
    assert re.search(r">random_search_set</th>\s*<td class=\"kind\">random search, best of 5, its cost allows 7</td>", text)
    assert "derived · front" in text
    assert "random search, best of 5, its cost allows 7 · front" not in text


def _cell(text, against):
    """What the headline table says about a baseline, tag by tag."""
    [found] = re.findall(rf'<td class="(\w+)" data-label="against {against}">(.*?)</td>', text)
    return [found[0], *filter(None, re.split(r"<[^>]*>", found[1]))]


def test_the_headline_table_marks_each_verdict_in_words(report):
    compared = [
        comparison("macs", "better"),
        comparison("log_macs", "equal", difference=-0.004, half_width=0.0161),
        comparison("random_search", "unknown", half_width=None, at_equal_latency=False),
        comparison("random", "worse", difference=-0.0234),
    ]
    text = report([network(), random_search()], comparisons=compared)
    assert _cell(text, "most MACs") == ["better", "▲ better", "+2.3 ± 1.6", "80.0 %"]
    assert _cell(text, "largest Σ log MACs") == ["equal", "○ not better", "−0.4 ± 1.6", "80.0 %"]
    assert _cell(text, "random search at the same cost") == ["unknown", "? not known", "+2.3*", "80.0 %; best of 3"]
    assert _cell(text, "random architectures") == [
        "worse",
        "▼ worse",
        "−2.3 ± 1.6",
        "80.0 %; n = 5".replace("n = 5", "n\xa0=\xa05"),
    ]
    places = [text.index(part) for part in ("<figure>", '<table class="headline">', '<section id="summary">')]
    assert places == sorted(places)


def test_the_headline_sentence_counts_budgets(report):
    compared = [
        *(comparison("macs"), comparison("log_macs"), comparison("random_search", "worse")),
        *(comparison("macs", baseline="b"), comparison("log_macs", "equal", "b"), comparison("random_search", baseline="b")),
    ]
    text = report([network(), random_search(drawn=6)], comparisons=compared)
    sentence = "better than every rule that costs nothing within 1 of 2 latency budgets and than random search within 1 of 2"
    assert f"The architectures derived are {sentence} (worse within 1)." in text
    methods = [comparison(method="soft"), comparison(method="hard", verdict="equal", networks="one")]
    text = report([network()], comparisons=methods)
    assert "The architectures derived by soft are better than random architectures within 1 of 1 latency budget." in text
    assert "The architecture derived by hard is better than random architectures within 0 of 1 latency budget." in text
    assert '<table class="headline">' not in report([network()])


DEVICES = on_devices(a=("cpu", " ".join(OPS)), b=("phone", "ir_k3_e1 skip skip"), c=("phone", "skip skip skip"))


def test_devices_stand_side_by_side(report):
    networks = [network("a"), network("b", target="phone"), network("c", target="phone")]
    rows = [dataclasses.replace(row, validation_top1=0.8) if row.network == "c" else row for row in DEVICES]
    rows[1] = dataclasses.replace(rows[1], within="a")  # b on cpu
    rows[-1] = dataclasses.replace(rows[-1], measured_us=None)
    said = [("all", "device", "On cpu, a was chosen.")]
    text = report(networks, said, searches=["a"], targets=("cpu", "phone"), devices=rows)
    section = text[text.index('<section id="devices">') : text.index('<section id="summary">')]
    assert "<li>On cpu, a was chosen.</li>" in section
    assert 'id="findings"' not in text  # it stands there, and not twice
    table, differences = (re.split("<tr>", part)[1:] for part in section.split("<h3>Where they differ</h3>"))
    cells = [[re.sub("<[^>]*>", "|", cell).strip("|") for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in table]
    assert cells[0][4:6] == ["latency on cpu, ms", "latency on phone, ms"]
    kept, not_measured = "4.50", "2.50||not measured"
    assert cells[1:] == [
        ["a", "cpu", "3.00", "90.00| ± 1.00", "2.50||2.80 measured", "4.50|keeps no budget", "1.00", "0.100", "123\xa0kB"],
        ["b", "phone", "3.00", "90.00| ± 1.00", kept, "2.50||2.80 measured", "1.00", "0.100", "123\xa0kB"],
        ["c", "phone", "3.00", "90.00| ± 1.00", "4.50|keeps no budget", not_measured, "1.00", "0.100", "123\xa0kB"],
    ]
    assert "a, b agree in 2 of 3 layers (of each device the most accurate on the images left out). The others:" in section
    assert [re.findall(r">([^<\s][^<]*)<", row) for row in differences[1:]] == [["2", "4×4", "k5_e3", "skip"]]
    assert 'id="devices"' not in report([network("a")], searches=["a"])


def test_networks_of_devices_may_differ_in_channels():
    space = read_space(
        {"base": "tiny", "stages": [{"layers": 1, "channels": [4, 8], "stride": 1}, {"layers": 1, "channels": 16, "stride": 2}]}
    )
    rows = on_devices(a=("cpu", "ir_k3_e1_c4 skip"), b=("phone", "ir_k3_e1_c8 skip"))
    found = side_by_side(rows, space)
    assert [(one.layer, one.output, one.ops) for one in found.differences] == [(1, "8×8", ["k3_e1_c4", "k3_e1_c8"])]


def test_devices_that_have_the_same_network_do_not_differ(report):
    rows = on_devices(a=("cpu", " ".join(OPS)), b=("phone", " ".join(OPS)))
    text = report([network("a"), network("b", target="phone")], searches=["a"], targets=("cpu", "phone"), devices=rows)
    assert 'id="devices"' in text
    assert "Where they differ" not in text


def test_a_table_of_devices_has_each_network_once_on_each_target(tmp_path):
    for rows, count in ((DEVICES[:-1], 0), ([*DEVICES, DEVICES[-1]], 2)):
        with pytest.raises(InputError, match=rf"devices\.tsv has {count} rows of network c on target phone, but needs one"):
            read_devices(write_rows(tmp_path / "devices.tsv", [vars(row) for row in rows]))


def test_the_order_inside_the_supernet(report):
    orders = [order(tau=-0.4), order("macs", tau=None), order("chance", tau=0.0), order("training", tau=0.75)]
    text = report([network(), *RANDOM], orders=orders)
    section = text[text.index('<section id="order">') : text.index('<section id="summary">')]
    caption = "Kendall's τ over 5 random architectures is −0.40; of MACs it is –, the ceiling is +0.75, by chance"
    assert caption in section.replace("&#39;", "'")
    rows = re.findall(r'<th scope="row">(.*?)</th>\s*<td class="n">(.*?)</td>\s*<td class="n">(.*?)</td>', section)
    words = ["training runs against one another (ceiling)", "supernet of one", "MACs", "chance"]
    assert rows == [(name, tau, "1.2") for name, tau in zip(words, ("+0.75", "−0.40", "–", "0 ± 0.80"), strict=True)]
    assert 'id="order"' not in report([network(), *RANDOM])
    with pytest.raises(InputError, match="the ranking of search one is over 6 random architectures, but of 5 both"):
        report([network(), *RANDOM], orders=[order(networks=6)])


def test_the_picture_of_the_order_has_a_panel_a_search_up_to_twelve():
    def picture(count, better=0.0):
        searches = [f"soft_{at}" for at in range(count)]
        evaluation = Evaluation([network(), *RANDOM], [], [order(search=search) for search in searches], [], [])
        one_shot = {name: top1 + better for name, top1 in ONE_SHOT.items()}
        return ranking_plot(evaluation, dict.fromkeys(searches, one_shot), 10)

    few, many = picture(2), picture(13)
    assert b"soft_1<" in few.svg
    assert b"soft_2<" not in few.svg
    assert b"soft_11<" in many.svg
    assert b"soft_12<" not in many.svg
    assert many.caption.startswith(
        "Shown are the first 12 of 13 searches. Kendall's τ over 5 random architectures is +0.40 to +0.40"
    )
    assert b"chance, 10 %" in few.svg
    assert b"chance, 10 %" not in picture(2, better=0.5).svg
    assert picture(0) is None


def test_front_by_hand():
    points = {"a": (1, 0.5), "b": (2, 0.7), "c": (2, 0.6), "d": (3, 0.7), "e": (4, 0.9)}
    networks = [network(name, latency_us=us, top1=top1) for name, (us, top1) in points.items()]
    assert [one.network for one in front([*networks, random_search(latency_us=0.5, top1=0.99)])] == ["a", "b", "e"]


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("top1", "90.3", "a number from 0 to 1"),
        ("latency_us", "", "a number above 0"),
        ("latency_us", "nan", "a number above 0"),
        ("kind", "lost", "found or rule or random_search or random or ranked or published"),
        ("rule", "most", "macs or log_macs"),
        ("trainings", "0", "a whole number, 1 or more"),
        ("network", "", "a text"),
    ],
)
def test_wrong_values_of_a_summary_end_in_a_sentence(tmp_path, column, value, what):
    path = write_rows(tmp_path / "summary.tsv", [vars(network()) | {column: value}])
    with pytest.raises(InputError, match=f"summary.tsv, row 1: {column} is '{value}', but must be {what}"):
        read_summary(path)


@pytest.mark.parametrize(
    ("table", "column", "value", "what"),
    [
        ("comparisons", "verdict", "good", "better or worse or equal or unknown"),
        ("comparisons", "against", "luck", "random or random_search or macs or log_macs"),
        ("comparisons", "difference", "much", "a number"),
        ("comparisons", "difference", "inf", "a number"),
        ("comparisons", "half_width", "-0.1", "a number, 0 or more"),
        ("comparisons", "at_equal_latency", "1", "True or False"),
        ("comparisons", "other_top1", "93.1", "a number from 0 to 1"),
        ("ranking", "tau", "1.5", "a number from -1 to 1"),
        ("ranking", "by", "luck", "training or supernet or macs or params or latency or chance"),
        ("ranking", "networks", "0", "a whole number, 1 or more"),
        ("ranking", "regret", "", "a number from 0 to 1"),
        ("devices", "predicted_us", "0", "a number above 0"),
        ("devices", "int8_bytes", "1.5", "a whole number, 0 or more"),
    ],
)
def test_a_damaged_table_ends_in_a_sentence(tmp_path, table, column, value, what):
    good = {"comparisons": [comparison()] * 2, "orders": [order()] * 2, "devices": DEVICES}
    paths = write_evaluation(tmp_path, **good)
    evaluation = read_evaluation(**paths)
    assert (evaluation.comparisons, evaluation.orders, evaluation.devices) == tuple(good.values())
    with open(paths[table], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    write_rows(paths[table], [rows[0], rows[1] | {column: value}])
    with pytest.raises(InputError, match=rf"{table}\.tsv, row 2: {column} is '{value}', but must be {what}$"):
        read_evaluation(**paths)
    write_rows(paths[table], [{key: value for key, value in rows[0].items() if key != column}])
    with pytest.raises(InputError, match=rf"{table}\.tsv lacks the column {column}"):
        read_evaluation(**paths)


def test_what_a_kind_needs_is_asked_for(tmp_path):
    for kind, column in (("rule", "rule"), ("random_search", "drawn")):
        path = write_rows(tmp_path / "summary.tsv", [vars(network()), vars(network("other", kind))])
        with pytest.raises(InputError, match=rf"summary\.tsv, row 2: {column} is empty, but kind {kind} needs it"):
            read_summary(path)


def test_one_shot_accuracies_are_checked(tmp_path):
    path = write_rows(tmp_path / "one.supernet.tsv", [{"name": "a", "ops": "skip", "supernet_top1": 0.25}])
    assert read_one_shot(path) == {"a": 0.25}
    write_rows(path, [{"name": "a", "ops": "skip", "supernet_top1": 25}])
    with pytest.raises(InputError, match=r"one\.supernet\.tsv, row 1: supernet_top1 is '25'"):
        read_one_shot(path)


def test_warnings_that_differ_but_in_numbers_are_one(report):
    found = [(f"s{at}", "warning", f"Only {at} of 9.") for at in range(4)] + [("all", "warning", "Slow.")]
    text = report([network()], found)
    assert text.index("Warning</strong>\n<p>Slow.") < text.index("Warning: 4 searches (numbers of the first)")
    assert ("Only 0 of 9." in text, "Only 1 of 9." in text) == (True, False)


def test_a_network_stands_once_for_each_target(tmp_path):
    path = write_rows(tmp_path / "summary.tsv", [vars(network()), vars(network(target="gpu"))])
    assert len(read_summary(path)) == 2
    with pytest.raises(InputError, match="network one on target cpu twice"):
        read_summary(write_rows(path, [vars(network())] * 2))


def test_gaps_of_a_summary_are_none(tmp_path):
    path = write_rows(tmp_path / "summary.tsv", [vars(network()) | {"seed": "3.0", "top1_sd": "", "measured_us": ""}])
    (read,) = read_summary(path)
    assert (read.seed, read.top1_sd, read.measured_us) == (3, None, None)


@pytest.mark.parametrize(
    "text", ["", "about\tkind\n", "about\tkind\ttext\nall\twarning\n", 'about\tkind\ttext\nall\twarning\t"open\n', "\0", None]
)
def test_malformed_findings_end_in_a_sentence(tmp_path, text):
    paths = write_evaluation(tmp_path)
    paths["findings"].unlink()
    if text is not None:
        paths["findings"].write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"findings\.tsv"):
        read_evaluation(**paths)


@pytest.mark.parametrize("text", ["", "<svg", "<html/>", '<svg xmlns="http://www.w3.org/2000/svg"/>', None])
def test_what_is_no_picture_ends_in_a_sentence(tmp_path, text):
    if text is not None:
        (tmp_path / "x.svg").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.svg"):
        read_picture(tmp_path / "x.svg")


def test_what_operators_are_worth_is_drawn_beside_what_they_cost(tmp_path):
    arguments = write_search(tmp_path / "one", "one")
    worth = {"ir_k3_e1": -3.0, "ir_k3_s2": 0.5, "ir_k5_e3": 4.5, "skip": -2.0}
    write_rows(
        arguments.search / "theta.tsv",
        [
            {"epoch": 2, "layer": layer, "op": op, "theta": layer * value, "probability": 0.25}
            for layer in (1, 2, 3)
            for op, value in worth.items()
        ],
    )
    rows = [{"epoch": 2, "phase": phase, "latency_us": "", "top1": 0.5} for phase in ("weights", "largest", "random", "rated")]
    write_rows(arguments.search / "history.tsv", rows)
    plot_search.main(arguments)
    caption = read_picture(arguments.theta).caption
    assert "Worth most is k5_e3 in layer 3 (+13.5), least k3_e1 in layer 3 (-9.0). In 3 of 3 layers" in caption
    assert "the largest architecture ends at an accuracy of 50.0%" in read_picture(arguments.history).caption
    (arguments.search / "theta.tsv").write_text(
        "\n".join((arguments.search / "theta.tsv").read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="layer 3 has no row for skip"):
        plot_search.main(arguments)


def test_programs_name_the_file_that_is_wrong(tmp_path, script, report):
    arguments = write_search(tmp_path / "one", "one")
    rows = (arguments.search / "theta.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (arguments.search / "theta.tsv").write_text("".join(rows[:-1]), encoding="utf-8")
    done = script("plot_search", *(part for key, value in vars(arguments).items() if value for part in (f"--{key}", value)))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "theta.tsv: epoch 2 has no row for layer 3, skip" in done.stderr
    assert not arguments.theta.exists()
    with pytest.raises(InputError, match=r"summary\.tsv.*no operator 'ir_k7_e6'"):
        report([network(), network("two", ops="ir_k7_e6 skip skip")])


def test_a_history_without_epochs_is_refused(tmp_path):
    with pytest.raises(InputError, match="no epochs"):
        history([], "t", tmp_path / "t.svg")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5148, "0.515"), (9.999, "10.00"), (12.34, "12.3"), (1234.5, "1,234"), (0.00123, "0.00123")]
)
def test_rounded(value, text):
    assert rounded(value) == text


def test_a_latency_stays_on_its_line_where_it_is_drawn():
    assert (in_findings(8000.0), milliseconds(8000.0)) == ("8.00 ms", "8.00\xa0ms")


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (99.4, "99 s"), (125, "2 min"), (5400, "90 min"), (12345, "3.4 h")])
def test_duration(seconds, text):
    assert duration(seconds).replace("\xa0", " ") == text
