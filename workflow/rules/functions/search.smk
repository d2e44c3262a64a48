# What the training of a supernet depends on: the settings of the first search that chooses from it.


def training_search(wildcards):
    """That search's settings."""
    return CONFIG["searches"][TRAINED_FOR[wildcards.supernet]]


def search_settings(wildcards):
    """What the training of a supernet depends on."""
    return settings_of_supernet(wildcards.supernet)


def settings_of_supernet(supernet):
    """The settings of its method, without the unused form of the loss."""
    settings = of_method(CONFIG["searches"][TRAINED_FOR[supernet]])
    keys = {"paper": ("form", "alpha", "beta"), "target": ("form", "target_us", "weight")}
    if loss := settings.get("loss"):
        settings["loss"] = {key: loss[key] for key in keys[loss["form"]]}
    return json_of(settings)


def search_table(wildcards):
    """The latency table, if the method looks at it."""
    return latency_table(wildcards) if looks_at_latency(wildcards) else []


def looks_at_latency(wildcards):
    """Whether latency is part of what a search's training minimises."""
    return training_search(wildcards)["method"] == "fbnet"


def aim_options(wildcards):
    """The budget, where it is what the loss aims at."""
    search = training_search(wildcards)
    aims = search["loss"]["form"] == "target" and search["loss"]["target_us"] is None
    return budget_of(search["latency_budget"] if aims and looks_at_latency(wildcards) else None)


def table_options(wildcards, input):
    """The table of a search's target, and what it must have been made for, if the method looks at it."""
    if not input.table:
        return []
    return [f"--table={input.table}", f"--expected={json_of(table_settings(training_search(wildcards)['target']))}"]


def search_validation(wildcards):
    """The validation of that table, if the search must not start from a bad one."""
    target = training_search(wildcards)["target"]
    wanted = VALIDATION["strict"] and is_validated(target) and looks_at_latency(wildcards)
    return f"{RESULTS}/latency/{target}.validation.tsv" if wanted else []


def strict_options(wildcards, input):
    """What keeps a search from starting from a bad table, if that is wished."""
    return [f"--validation={input.validation}", f"--largest-error={VALIDATION['error']}"] if input.validation else []


def all_supernets():
    """Every supernet with its settings, as options of a script."""
    return [word for name in TRAINED_FOR for word in ("--supernet", name, settings_of_supernet(name))]


def tables_there():
    """The latency tables that have been measured."""
    return [table for table in TABLES if Path(table).is_file()]
