# What a search depends on.


def search_settings(wildcards):
    """What the training of one search depends on: its settings, without the target and the unused form of the loss."""
    settings = {key: value for key, value in CONFIG["searches"][wildcards.search].items() if key not in NOT_TRAINED}
    keys = {"paper": ("form", "alpha", "beta"), "target": ("form", "target_us", "weight")}
    loss = settings["loss"]
    return json_of(settings | {"loss": {key: loss[key] for key in keys[loss["form"]]}})


def aim_options(wildcards):
    """The budget, where it is what the loss aims at."""
    search = CONFIG["searches"][wildcards.search]
    aims = search["loss"]["form"] == "target" and search["loss"]["target_us"] is None
    return budget_options(wildcards) if aims else {"options": [], "operators": None}


def expected_settings(wildcards):
    """What the table of a search's target must have been made for."""
    return json_of(table_settings(CONFIG["searches"][wildcards.search]["target"]))


def search_validation(wildcards):
    """The validation of that table, if the search must not start from a bad one."""
    target = CONFIG["searches"][wildcards.search]["target"]
    return f"{RESULTS}/latency/{target}.validation.tsv" if VALIDATION["strict"] and is_measured(target) else []


def strict_options(wildcards, input):
    """What keeps a search from starting from a bad table, if that is wished."""
    return [f"--validation={input.validation}", f"--largest-error={VALIDATION['error']}"] if input.validation else []
