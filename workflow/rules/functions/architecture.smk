# What the choice of an architecture depends on.


def budget_options(wildcards):
    """The budgets of a job's search, as options of a script, and as text what published networks that they name consist of.

    So a change of those samples again.
    """
    search = CONFIG["searches"][wildcards.search]
    own, others = budget_of(search["latency_budget"]), further_budgets(search["budgets"])
    return {key: own[key] + others[key] for key in own}


def budget_of(text):
    """A latency budget, if any, in the same way."""
    if not text:
        return {"options": [], "operators": []}
    return {"options": [f"--latency-budget={text}"], "operators": [budget.read(text, SPACE)[1]]}


def further_budgets(budgets):
    """The other budgets in the same way; to one of latency belongs the table of its target."""
    options, operators = [], []
    for name, amount in budgets.items():
        options += ["--budget", name, str(amount)]
        if name not in budget.UNITS:
            options.append(f"{RESULTS}/latency/{name}.tsv")
            operators.append(budget.read(str(amount), SPACE)[1])
    return {"options": options, "operators": operators}


def tables_of_budgets(budgets):
    """The tables of the other targets that budgets are about."""
    return [f"{RESULTS}/latency/{name}.tsv" for name in budgets if name not in budget.UNITS]


def other_tables(wildcards):
    """Those of a job's search."""
    return tables_of_budgets(CONFIG["searches"][wildcards.search]["budgets"])


def network_options(wildcards, input):
    """Where a model's architecture and weights stand."""
    if RACE["epochs"]:
        return ["--trained", input.weights]
    return ["--arch", input.definition, "--supernet", input.weights]


def published_architecture(wildcards):
    """A published architecture as text that changes with its space or operators."""
    architecture = find(wildcards.published)
    return f"{json_of(architecture.space.definition)} {architecture}"
