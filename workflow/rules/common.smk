# What all rules share: the checked configuration, the paths, the hashes of the code.
import itertools
import json
import shlex
import signal
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

# What SLURM sends before a job's time is up reaches all its processes. Training saves its state; Snakemake and the shell
# between them would end of it, and take training with them. They inherit this: where the signal is blocked, it waits for
# whoever wants it, and so for a training that is still starting.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

ROOT = Path(str(workflow.current_basedir)).parents[1]  # also where this is a module of another workflow
SCRIPTS = ROOT / "workflow/scripts"
sys.path.insert(0, str(SCRIPTS))

from fbnet import budget
from fbnet.config import NOT_TRAINED, check_yaml, dataset_classes, resolve
from fbnet.errors import InputError
from fbnet.lookup import find
from fbnet.plan import network_sets
from fbnet.provenance import code_hashes, file_hash
from fbnet.summary import print_summary
from fbnet.target import TABLE_SETTINGS, Target
from fbnet.zoo import in_space, published

try:
    for path in workflow.configfiles:
        check_yaml(path)
    CONFIG, SPACE = resolve(
        config,
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
    )
    PUBLISHED = list(published())
    SETS = network_sets(CONFIG, SPACE)
    CLASSES = dataset_classes(CONFIG["dataset"])
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG["results"]
DATA = f"{RESULTS}/data/{CONFIG['dataset']['name']}"

TARGET_KEYS = Target.__dataclass_fields__
USED = sorted({search["target"] for search in CONFIG["searches"].values()})
TABLES = [f"{RESULTS}/latency/{target}.tsv" for target in CONFIG["latency"]]
VALIDATION = CONFIG["validation"]
MODELDEFS = [f"{RESULTS}/modeldef/{search}.py" for search in CONFIG["searches"]]
MODELS = [f"{RESULTS}/models/{search}.onnx" for search in CONFIG["searches"]]
SET_OF = {network: name for name, entry in SETS.items() for network in entry.networks}

# Names that the configuration knows, and no others: a wrong one on the command line is no file that a rule makes.
BASELINES = [name for name, entry in SETS.items() if entry.kind != "found"]
RANDOM = [name for name, entry in SETS.items() if entry.kind == "random"]


wildcard_constraints:
    target="|".join(CONFIG["latency"]),
    search="|".join(CONFIG["searches"]),
    baseline="|".join(BASELINES) or "(?!)",
    set="|".join(SETS),
    network="|".join([*CONFIG["searches"], *(f"{name}_[0-9]+" for name in RANDOM), "published_[A-Za-z0-9_]+"]),
    seed="[0-9]+",
    published="|".join(PUBLISHED),


def code(script):
    """Snakemake does not see what a script imports: these hashes in a rule's params rerun it when its code changes."""
    return code_hashes(SCRIPTS / script)


def untracked(value):
    """A parameter that reruns nothing when it changes, as a folder that moves: Snakemake keeps no record of what asks for `output`."""
    return lambda wildcards, output: value


def command(script):
    """What runs a script: the python that runs Snakemake, also where that is not on PATH, or the one that --sdm conda brings."""
    python = "python" if workflow.deployment_settings.deployment_method else sys.executable
    return shlex.join([python, str(SCRIPTS / script)])


def template_hash():
    """The same of the report's template."""
    return file_hash(ROOT / "workflow/report/report.html.j2")


def json_of(settings):
    """Settings as text that is the same for the same settings."""
    return json.dumps(settings, sort_keys=True)


def own_table(wildcards):
    """The table that the user brings for this target, if any."""
    return CONFIG["latency"][target_of_job(wildcards)].get("table", [])


def table_settings(target):
    """What a target's table is made for, as text by key; a table that is brought may say less."""
    own = CONFIG["latency"][target]
    settings = Target(**{key: value for key, value in own.items() if key in TARGET_KEYS}).settings()
    return {key: settings[key] for key in TABLE_SETTINGS} if "table" in own else settings


def target_options(wildcards):
    """The settings of a job's target as options of a script, those that count for its engine, in an order of their own."""
    return [f"--{key.replace('_', '-')}={value}" for key, value in sorted(table_settings(target_of_job(wildcards)).items())]


def effort_options(wildcards):
    """How long to measure, where something is measured."""
    target = CONFIG["latency"][target_of_job(wildcards)]
    return [f"--{key}={target[key]}" for key in ("precision", "runs") if is_measured(target_of_job(wildcards))]


def target_of_job(wildcards):
    """The target that a job measures, or for which it makes something."""
    name = wildcards.get("search") or wildcards.get("set") or wildcards.get("baseline")
    return SETS[name].target if name else wildcards.get("target", TARGET)


def gpus_to_measure(wildcards):
    """The number of GPUs that measuring a job's target takes."""
    return int(CONFIG["latency"][target_of_job(wildcards)].get("device") == "cuda")


def node_resources():
    """What names the nodes of a job's target on a cluster; for all rules of a group, which is one submission to one node."""
    of_targets = {target: settings.get("resources", {}) for target, settings in CONFIG["latency"].items()}
    keys = sorted({key for resources in of_targets.values() for key in resources})
    return {key: lambda wildcards, key=key: of_targets[target_of_job(wildcards)].get(key) for key in keys}


def is_measured(target):
    """Whether this target's table is measured here, neither brought nor counted."""
    settings = CONFIG["latency"][target]
    return "table" not in settings and settings["engine"] != "analytic"


def expected_settings(wildcards):
    """What the table of a search's target must have been made for."""
    return json_of(table_settings(CONFIG["searches"][wildcards.search]["target"]))


def source_options():
    """The settings that the configured kind of dataset depends on, as options of the script."""
    dataset = CONFIG["dataset"]
    if dataset["name"] == "cifar10":
        keys = ["folder"] if dataset["folder"] else ["archive" if dataset["archive"] else "url", "checksum"]
        settings = {key: dataset[key] for key in keys if dataset[key] is not None}
    else:
        settings = {"resolution": SPACE.resolution}
        if dataset["name"] == "image_folder":
            settings["folder"] = dataset["folder"]
    return [f"--{key}={value}" for key, value in settings.items()]


def search_settings(wildcards):
    """What the training of one search depends on: its settings, without the target and the unused form of the loss."""
    settings = {key: value for key, value in CONFIG["searches"][wildcards.search].items() if key not in NOT_TRAINED}
    keys = {"paper": ("form", "alpha", "beta"), "target": ("form", "target_us", "weight")}
    loss = settings["loss"]
    return json_of(settings | {"loss": {key: loss[key] for key in keys[loss["form"]]}})


def budget_options(wildcards):
    """A search's latency budget, and as text what a published network that it names consists of: a change samples again."""
    text = CONFIG["searches"][wildcards.search]["latency_budget"]
    if not text:
        return {"options": [], "operators": None}
    return {"options": [f"--latency-budget={text}"], "operators": budget.read(text, SPACE)[1]}


def aim_options(wildcards):
    """The budget, where it is what the loss aims at."""
    search = CONFIG["searches"][wildcards.search]
    aims = search["loss"]["form"] == "target" and search["loss"]["target_us"] is None
    return budget_options(wildcards) if aims else {"options": [], "operators": None}


def latency_table(wildcards):
    """The latency table of a job's target."""
    return f"{RESULTS}/latency/{target_of_job(wildcards)}.tsv"


def strict_options(wildcards, input):
    """What keeps a search from starting from a bad table, if that is wished."""
    return [f"--validation={input.validation}", f"--largest-error={VALIDATION['error']}"] if input.validation else []


def search_validation(wildcards):
    """The validation of that table, if the search must not start from a bad one."""
    target = CONFIG["searches"][wildcards.search]["target"]
    return f"{RESULTS}/latency/{target}.validation.tsv" if VALIDATION["strict"] and is_measured(target) else []


def published_architecture(wildcards):
    """A published architecture as text that changes with its space or operators."""
    architecture = find(wildcards.published)
    return f"{json_of(architecture.space.definition)} {architecture}"


# The evaluation


def model_of_baseline(wildcards):
    """The architecture whose latency random ones must keep to, where no budget is given."""
    like = SETS[wildcards.baseline].like
    return [f"{RESULTS}/architectures/{like}.tsv"] if like else []


def baseline_options(wildcards):
    """How a baseline is chosen, and as text the published operators that it depends on."""
    entry = SETS[wildcards.baseline]
    if entry.kind == "published":
        names = [network.removeprefix("published_") for network in entry.networks]
        return {"options": ["--published", *names], "operators": [published_operators(name) for name in names]}
    evaluation = CONFIG["evaluation"]
    options = [f"--count={evaluation['random']}", f"--seed={evaluation['random_seed']}"]
    if entry.like:
        return {"options": options, "operators": None}
    return {"options": [*options, f"--latency-budget={entry.budget}"], "operators": budget.read(entry.budget, SPACE)[1]}


def file_option(option, key):
    """An option of a script that names an input file, where the job has one."""
    return lambda wildcards, input: [f"--{option}={input[key]}"] if input.get(key) else []


def published_operators(name):
    """The operators of a published architecture in the space that is searched, as text."""
    return " ".join(in_space(name, SPACE))


def architectures_of_network(wildcards):
    """The file that a network's architecture stands in; a published one is in the zoo."""
    name = SET_OF[wildcards.network]
    return [] if SETS[name].kind == "published" else [f"{RESULTS}/architectures/{name}.tsv"]


def architecture_options(wildcards):
    """Which architecture a network has: the first of a search, one of a baseline by name, or a published one by its operators."""
    network = wildcards.network
    kind = SETS[SET_OF[network]].kind
    if kind == "published":
        return [f"--ops={published_operators(network.removeprefix('published_'))}"]
    return [f"--row={network}"] if kind == "random" else []


def start_of_network(wildcards):
    """The supernet whose weights a network starts from, if it does."""
    starts = CONFIG["train"]["start"] == "supernet"
    return [f"{RESULTS}/search/{SET_OF[wildcards.network]}/supernet.pt"] if starts else []


def trainings():
    """The histories of all trainings of the evaluation."""
    return [
        f"{RESULTS}/training/{network}/seed_{seed}/history.tsv"
        for entry in SETS.values()
        for network in entry.networks
        for seed in range(CONFIG["evaluation"]["trainings"])
    ]


def architectures_beside(wildcards):
    """What a supernet judges: its own architectures, and those that it is held against."""
    baseline = SETS[wildcards.search].baseline
    return [f"{RESULTS}/architectures/{name}.tsv" for name in (wildcards.search, baseline) if name]


def evaluation_plan():
    """The sets as text, for the script that brings their results together."""
    return json_of({name: vars(entry) | {"measured": is_measured(entry.target)} for name, entry in SETS.items()})


def files_of_target(target):
    """A target's table, its picture, its validation and the picture of that, - where nothing is measured."""
    stem = f"{RESULTS}/latency/{target}"
    validation = [f"{stem}.validation.tsv", f"{stem}.validation.svg"] if is_measured(target) else ["-", "-"]
    return [f"{stem}.tsv", f"{stem}.svg", *validation]


def report_options(wildcards, input):
    """What the report shows of targets and searches, as options of its script."""
    files, plots, options = iter(input.latency), iter(input.plots), []
    for target in USED:
        options += ["--target", target, *(path if path == "-" else next(files) for path in files_of_target(target))]
    for search in CONFIG["searches"]:
        options += ["--search", search, *itertools.islice(plots, 3)]
    return options


def only_profiling():
    """Whether the call is `--forcerun profile_latency` or `--forcerun profile_latency profile_latency`.

    Snakemake takes every word after --forcerun for a rule to force, so the second form names no target; it would go on
    to retrain, in the same call, from whatever was measured.
    """
    settings = workflow.dag_settings
    return set(settings.forcerun) == {"profile_latency"} and not settings.targets


def final_files(wildcards):
    """What the plain call makes: definitions, models, and reports of their tables; tables alone where only these are asked for."""
    if only_profiling():
        return TABLES
    plots = [f"{RESULTS}/latency/{target}.svg" for target in USED]
    validations = [f"{RESULTS}/latency/{target}.validation.tsv" for target in USED if is_measured(target)]
    return MODELDEFS + MODELS + plots + validations
