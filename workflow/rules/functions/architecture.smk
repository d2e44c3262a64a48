# What the choice of an architecture depends on.


def budget_options(wildcards):
    """The latency budget of a job's search, as `budget_of` has it."""
    return budget_of(wildcards.search)


def budget_of(search):
    """A search's latency budget, and as text what a published network that it names consists of: a change samples again."""
    text = CONFIG["searches"][search]["latency_budget"]
    if not text:
        return {"options": [], "operators": None}
    return {"options": [f"--latency-budget={text}"], "operators": budget.read(text, SPACE)[1]}


def network_options(wildcards, input):
    """Where a model's architecture and weights stand."""
    if RACE["epochs"]:
        return ["--trained", input.weights]
    return ["--arch", input.definition, "--supernet", input.weights]


def published_architecture(wildcards):
    """A published architecture as text that changes with its space or operators."""
    architecture = find(wildcards.published)
    return f"{json_of(architecture.space.definition)} {architecture}"
