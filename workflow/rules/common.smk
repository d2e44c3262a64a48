# What all rules share: the checked configuration, the paths, the hashes of the code.
import json
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
SCRIPTS = str(ROOT / "workflow/scripts")
sys.path.insert(0, SCRIPTS)

from fbnet.config import check_yaml, dataset_classes, resolve
from fbnet.errors import InputError
from fbnet.provenance import code_hashes

try:
    for path in workflow.configfiles:
        check_yaml(path)
    CONFIG, SPACE = resolve(
        config,
        yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()),
        ROOT / "workflow/spaces",
    )
    CLASSES = dataset_classes(CONFIG["dataset"])
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG["results"]
DATA = f"{RESULTS}/data/{CONFIG['dataset']['name']}"
SPACE_FILE = CONFIG["space_file"]

# Under --sdm conda the environment's python; otherwise the one that runs Snakemake, also if its folder is not on PATH.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable

TABLES = [f"{RESULTS}/latency/{target}.tsv" for target in CONFIG["latency"]]
SUPERNETS = [f"{RESULTS}/search/{search}/supernet.pt" for search in CONFIG["searches"]]
ARCHITECTURES = [f"{RESULTS}/architectures/{search}.tsv" for search in CONFIG["searches"]]
MODELDEFS = [f"{RESULTS}/modeldef/{search}.py" for search in CONFIG["searches"]]


wildcard_constraints:
    target="[A-Za-z_][A-Za-z0-9_]*",
    search="[A-Za-z_][A-Za-z0-9_]*",


def code(script):
    """Snakemake does not see what a script imports: these hashes in a rule's params rerun it when its code changes."""
    return code_hashes(Path(SCRIPTS, script))


def json_of(settings):
    """Settings as text that is the same for the same settings."""
    return json.dumps(settings, sort_keys=True)


def stand_for_their_files(files):
    """On the command line, let the name of a rule stand for all its files, although the rule has wildcards.

    `--forcerun` takes every word up to the next option, so that in `--forcerun profile_latency profile_latency` no word
    is left as a target; to force the profiling and nothing else is understood as that target.
    """
    settings = workflow.dag_settings
    if settings is None or settings.target_jobs:
        return
    targets = set(settings.targets)
    if not targets and set(settings.forcerun) == {"profile_latency"}:
        targets = {"profile_latency"}
    settings.targets = {file for target in targets for file in files.get(target, [target])}


stand_for_their_files(
    {
        "profile_latency": TABLES,
        "train_supernet": SUPERNETS,
        "sample_architecture": ARCHITECTURES,
        "export_modeldef": MODELDEFS,
    }
)
