# What a search depends on.


def search_settings(wildcards):
    """What the training of one search depends on: the settings of its method, without the unused form of the loss."""
    settings = of_method(CONFIG["searches"][wildcards.search])
    keys = {"paper": ("form", "alpha", "beta"), "target": ("form", "target_us", "weight")}
    if loss := settings.get("loss"):
        settings["loss"] = {key: loss[key] for key in keys[loss["form"]]}
    return json_of(settings)


def search_table(wildcards):
    """The latency table, if the method looks at it."""
    return latency_table(wildcards) if looks_at_latency(wildcards) else []


def looks_at_latency(wildcards):
    """Whether latency is part of what a search's training minimises."""
    return CONFIG["searches"][wildcards.search]["method"] == "fbnet"


def aim_options(wildcards):
    """The budget, where it is what the loss aims at."""
    search = CONFIG["searches"][wildcards.search]
    aims = search["loss"]["form"] == "target" and search["loss"]["target_us"] is None
    return budget_options(wildcards) if aims and looks_at_latency(wildcards) else {"options": [], "operators": None}


def table_options(wildcards, input):
    """The table of a search's target, and what it must have been made for, if the method looks at it."""
    if not input.table:
        return []
    return [f"--table={input.table}", f"--expected={json_of(table_settings(CONFIG['searches'][wildcards.search]['target']))}"]


def search_validation(wildcards):
    """The validation of that table, if the search must not start from a bad one."""
    target = CONFIG["searches"][wildcards.search]["target"]
    wanted = VALIDATION["strict"] and is_measured(target) and looks_at_latency(wildcards)
    return f"{RESULTS}/latency/{target}.validation.tsv" if wanted else []


def strict_options(wildcards, input):
    """What keeps a search from starting from a bad table, if that is wished."""
    return [f"--validation={input.validation}", f"--largest-error={VALIDATION['error']}"] if input.validation else []
