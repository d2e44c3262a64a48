# What the stages share: the checked configuration, names and paths, and how a script is run.
import functools
import itertools
import json
import math
import os
import shlex
import shutil
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

from fbnet.architecture import budget, find
from fbnet.config import check_yaml, resolve
from fbnet.data import TRAINING_IMAGES, dataset_classes, survey
from fbnet.errors import InputError
from fbnet.evaluation import network_sets, print_summary
from fbnet.latency import TABLE_SETTINGS, Target
from fbnet.provenance import code_hashes, file_hash
from fbnet.settings import of_method
from fbnet.space import in_space, published
from fbnet.terminal import replace_unknown_characters

replace_unknown_characters()

try:
    for path in workflow.configfiles:
        check_yaml(path)
    CONFIG, SPACE = resolve(
        config,
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8")),
        look=workflow.is_main_process,
    )
    PUBLISHED = list(published())
    SETS = network_sets(CONFIG, SPACE)
    CLASSES = dataset_classes(CONFIG["dataset"])
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG["results"]
DATA = f"{RESULTS}/data/{CONFIG['dataset']['name']}"

TARGET_KEYS = Target.__dataclass_fields__
OF_BUDGETS = {name for search in CONFIG["searches"].values() for name in search["budgets"] if name not in budget.UNITS}
USED = sorted({search["target"] for search in CONFIG["searches"].values()} | OF_BUDGETS)
TABLES = [f"{RESULTS}/latency/{target}.tsv" for target in CONFIG["latency"]]
VALIDATION = CONFIG["validation"]
RACE = CONFIG["race"]
SAMPLES = f"{RESULTS}/race/{{search}}/entrants.tsv" if RACE["epochs"] else f"{RESULTS}/architectures/{{search}}.tsv"
MODELDEFS = [f"{RESULTS}/modeldef/{search}.py" for search in CONFIG["searches"]]
MODELS = [f"{RESULTS}/models/{search}.onnx" for search in CONFIG["searches"]]
SUPERNETS = CONFIG["supernets"]  # from which each search chooses
TRAINED_FOR = {}  # the first search of each supernet
for search, supernet in SUPERNETS.items():
    TRAINED_FOR.setdefault(supernet, search)
SET_OF = {network: name for name, entry in SETS.items() for network in entry.networks}

# Names that the configuration knows, and no others: a wrong one on the command line is no file that a rule makes.
BASELINES = [name for name, entry in SETS.items() if entry.kind != "found"]
RULES = [name for name, entry in SETS.items() if entry.kind == "rule"]
RANDOM = [name for name, entry in SETS.items() if entry.kind in ("random", "ranked")]


wildcard_constraints:
    target="|".join(CONFIG["latency"]),
    search="|".join(CONFIG["searches"]),
    supernet="|".join(TRAINED_FOR),
    baseline="|".join(BASELINES) or "(?!)",
    set="|".join(SETS),
    network="|".join([*CONFIG["searches"], *RULES, *(f"{name}_[0-9]+" for name in RANDOM), "published_[A-Za-z0-9_]+"]),
    seed="[0-9]+",
    round="[0-9]+",
    place="[0-9]+",
    published="|".join(PUBLISHED),


hashes_of = functools.cache(code_hashes)  # only of scripts that have jobs: a job of a cluster starts Snakemake for itself alone


def program(name):
    """The params of every rule: what runs a script, and `code`, which reruns it when it or what it imports has changed.

    It runs in the python that runs Snakemake, also where that is not on PATH, or in the one that --sdm conda brings.
    """
    python = "python" if workflow.deployment_settings.deployment_method else sys.executable
    return {"run": untracked(shlex.join([python, str(SCRIPTS / name)])), "code": lambda wildcards: hashes_of(SCRIPTS / name)}


def untracked(value):
    """A parameter that reruns nothing when it changes, as a folder that moves: Snakemake keeps no record of what asks for `output`."""
    return lambda wildcards, output: value


def json_of(settings):
    """Settings as text that is the same for the same settings."""
    return json.dumps(settings, sort_keys=True)


def target_of_job(wildcards):
    """The target that a job measures, or for which it makes something."""
    name = (
        TRAINED_FOR.get(wildcards.get("supernet")) or wildcards.get("search") or wildcards.get("set") or wildcards.get("baseline")
    )
    return SETS[name].target if name else wildcards.get("target", TARGET)


def node_resources():
    """What names the nodes of a job's target on a cluster; for all rules of a group, which is one submission to one node."""
    of_targets = {target: settings.get("resources", {}) for target, settings in CONFIG["latency"].items()}
    keys = sorted({key for resources in of_targets.values() for key in resources})
    return {key: lambda wildcards, key=key: of_targets[target_of_job(wildcards)].get(key) for key in keys}


def is_measured(target):
    """Whether this target's table is measured here, neither brought nor counted."""
    settings = CONFIG["latency"][target]
    return "table" not in settings and settings["engine"] != "analytic"


def is_validated(target):
    """Whether this target's table is compared with whole networks, here or where it is from."""
    return is_measured(target) or "validation" in CONFIG["latency"][target]


def in_supernet(file):
    """A file of the supernet that a search chooses from."""
    return lambda wildcards: f"{RESULTS}/search/{SUPERNETS[wildcards.search]}/{file}"


def latency_table(wildcards):
    """The latency table of a job's target."""
    return f"{RESULTS}/latency/{target_of_job(wildcards)}.tsv"


def file_option(option, key):
    """An option of a script that names an input file, where the job has one."""
    return lambda wildcards, input: [f"--{option}={input[key]}"] if input.get(key) else []


def command(target):
    """This call of Snakemake, with another target and nothing forced."""
    here = os.path.relpath(Path(sys.executable).with_name("snakemake"))
    words, forces = ["snakemake" if shutil.which("snakemake") else here, target], False
    for word in sys.argv[1:]:
        if word.startswith("-"):
            forces = word.split("=")[0] in ("-f", "--force", "-F", "--forceall", "-R", "--forcerun", "-U", "--until")
        if not forces and word not in workflow.dag_settings.targets:
            words.append(word)
    return shlex.join(words)


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
    validations = [f"{RESULTS}/latency/{target}.validation.tsv" for target in USED if is_validated(target)]
    return MODELDEFS + MODELS + plots + validations
