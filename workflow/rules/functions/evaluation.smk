# Which networks are compared, and what their files are.


def model_of_baseline(wildcards):
    """The architecture whose latency baselines must keep to, where no budget is given."""
    like = SETS[wildcards.baseline].like
    return [f"{RESULTS}/architectures/{like}.tsv"] if like else []


def baseline_options(wildcards):
    """How a baseline is chosen, and as text the published operators that it depends on."""
    entry = SETS[wildcards.baseline]
    if entry.kind == "published":
        names = [network.removeprefix("published_") for network in entry.networks]
        return {"options": ["--published", *names], "operators": [published_operators(name) for name in names]}
    evaluation = CONFIG["evaluation"]
    own, others = budget_of(entry.budget), further_budgets(entry.others)
    options = [*own["options"], *others["options"]]
    if entry.rule:
        options.append(f"--rule={entry.rule}")
    else:
        options += [f"--count={len(entry.networks)}", f"--seed={evaluation['random_seed']}"]
    if entry.kind == "ranked":
        options += ["--spread", *entry.budgets]
    spread = [budget.read(text, SPACE)[1] for text in entry.budgets]
    return {"options": options, "operators": [*own["operators"], *others["operators"], *spread]}


def tables_beside(wildcards):
    """The tables of other targets whose latency baselines must keep."""
    return tables_of_budgets(SETS[wildcards.baseline].others)


def published_operators(name):
    """The operators of a published architecture in the space that is searched, as text."""
    return " ".join(in_space(name, SPACE))


def architectures_of_network(wildcards):
    """The file that a network's architecture stands in; a published one is in the zoo."""
    name = SET_OF[wildcards.network]
    return [] if SETS[name].kind == "published" else [f"{RESULTS}/architectures/{name}.tsv"]


def architecture_options(wildcards):
    """Which architecture a network has: the first of a search or rule, a random one by name, or a published one by its operators."""
    network = wildcards.network
    kind = SETS[SET_OF[network]].kind
    if kind == "published":
        return [f"--ops={published_operators(network.removeprefix('published_'))}"]
    return [f"--row={network}"] if kind in ("random", "ranked") else []


def supernet_of_network(wildcards):
    """The supernet that a network was chosen from."""
    return [f"{RESULTS}/search/{SUPERNETS[SET_OF[wildcards.network]]}/supernet.pt"]


def start_of_network(wildcards):
    """The supernet whose weights a network starts from, if it does."""
    return supernet_of_network(wildcards) if CONFIG["train"]["start"] == "supernet" else []


def teacher_of_network(wildcards):
    """The supernet whose largest network teaches a network, if one does."""
    return supernet_of_network(wildcards) if CONFIG["train"]["teacher"] else []


def sets_of_network(wildcards):
    """The sets that a network is in: of a published one, that of each target."""
    names = [name for name, entry in SETS.items() if wildcards.network in entry.networks]
    if not names:
        raise WorkflowError(f"{wildcards.network} is no network of the evaluation; those are {', '.join(SET_OF)}")
    return names


def tables_of_network(wildcards):
    """The latency tables of the targets that a network is evaluated for, and of those on which it must keep a budget."""
    names = sets_of_network(wildcards)
    return [f"{RESULTS}/latency/{SETS[name].target}.tsv" for name in names] + tables_of_budgets(SETS[names[0]].others)


def measurements_of_network(wildcards):
    """Where a network's measurements stand once they are made. For the card of a baseline nothing is measured."""
    return [f"{RESULTS}/measurement/{name}.tsv" for name in sets_of_network(wildcards)]


def measured_of_network(wildcards):
    """The measurement of what a search has found, if its target is measured."""
    entry = SETS[SET_OF[wildcards.network]]
    return measurements_of_network(wildcards) if entry.kind == "found" and is_measured(entry.target) else []


def choice_of_network(wildcards):
    """What else a search might have chosen."""
    return [f"{RESULTS}/choice/{wildcards.network}.tsv"] if wildcards.network in CONFIG["searches"] else []


def trainings():
    """The histories of all trainings of the evaluation."""
    return [
        f"{RESULTS}/training/{network}/seed_{seed}/history.tsv"
        for entry in SETS.values()
        for network in entry.networks
        for seed in range(CONFIG["evaluation"]["trainings"])
    ]


def architectures_beside(wildcards):
    """What is evaluated with a supernet's weights: its own architectures, and the random ones of its target."""
    target = SETS[wildcards.search].target
    random = [name for name, entry in SETS.items() if entry.kind in ("random", "ranked") and entry.target == target]
    return [f"{RESULTS}/architectures/{name}.tsv" for name in (wildcards.search, *random)]


def front_options(wildcards, input):
    """Every search with what it has chosen and what was measured of that, as options of a script."""
    choices, measurements, options = iter(input.choices), iter(input.measurements), []
    for search in CONFIG["searches"]:
        entry = SETS[search]
        options += ["--search", search, entry.method, entry.target, next(choices)]
        options += [next(measurements)] if is_measured(entry.target) else []
    return options


def evaluation_plan():
    """The sets as text, for the script that brings their results together."""
    raced = bool(RACE["epochs"])
    return json_of(
        {
            name: vars(entry) | {"measured": is_measured(entry.target), "raced": raced and entry.kind == "found"}
            for name, entry in SETS.items()
        }
    )


def files_of_target(target):
    """A target's table, its picture, its validation and the picture of that, - where there is none."""
    stem = f"{RESULTS}/latency/{target}"
    validation = [f"{stem}.validation.tsv", f"{stem}.validation.svg"] if is_validated(target) else ["-", "-"]
    return [f"{stem}.tsv", f"{stem}.svg", *validation]


def report_options(wildcards, input):
    """What the report shows of targets and searches, as options of its script."""
    files, plots, supernets, options = iter(input.latency), iter(input.plots), iter(input.supernets), []
    for target in USED:
        options += ["--target", target, *(path if path == "-" else next(files) for path in files_of_target(target))]
    for search in CONFIG["searches"]:
        options += ["--search", search, *itertools.islice(plots, 3), next(supernets)]
    return options
