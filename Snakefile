# FBNet: find a fast ConvNet for a device. See README.md; settings stand in config.yaml.
import os

from snakemake.utils import min_version

min_version("9.0")

# Another file named with --configfile stands for itself, and is not laid over this one; where the workflow is called from
# another folder, that may have one of its own.
if not workflow.config_settings.configfiles:

    configfile: "config.yaml" if os.path.exists("config.yaml") else os.path.join(workflow.current_basedir, "config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/latency.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/architecture.smk"
include: "workflow/rules/evaluation.smk"


if RACE["epochs"]:

    include: "workflow/rules/race.smk"


rule all:
    default_target: True
    input:
        final_files,


onsuccess:
    if not only_profiling():
        try:
            print_summary(CONFIG, command)
        except InputError as error:
            raise WorkflowError(str(error)) from None
