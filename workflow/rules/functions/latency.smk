# Which table a target has, and what it is made for.


def own_table(wildcards):
    """The table that the user brings for this target, if any."""
    return CONFIG["latency"][target_of_job(wildcards)].get("table", [])


def own_validation(wildcards):
    """What whole networks take on this target, if the user brings that beside its table."""
    return CONFIG["latency"][target_of_job(wildcards)].get("validation", [])


def validation_options(wildcards):
    """How many networks are measured, and for how long, where they are measured here."""
    brought = "validation" in CONFIG["latency"][target_of_job(wildcards)]
    return [] if brought else [f"--{key}={VALIDATION[key]}" for key in ("networks", "runs")]


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


def gpus_to_measure(wildcards):
    """The number of GPUs that measuring a job's target takes, where the target does not ask for them in a cluster's words."""
    target = CONFIG["latency"][target_of_job(wildcards)]
    return int(target.get("device") == "cuda" and "gpu" not in str(target["resources"].get("gres")))
