# Latency of every operator on the target device.


def own_table(wildcards):
    """The table that the user brings for this target, if any."""
    return CONFIG["latency"][wildcards.target].get("table", [])


def profile_options(wildcards):
    """How to measure this target; nothing of it matters for a table that is brought."""
    target = CONFIG["latency"][wildcards.target]
    return [f"--{key}={target[key]}" for key in ("device", "threads", "runs") if key in target]


rule profile_latency:
    input:
        table=own_table,
    output:
        f"{RESULTS}/latency/{{target}}.tsv",
    log:
        f"{RESULTS}/logs/profile_latency/{{target}}.log",
    params:
        code=code("profile_latency.py"),
        space=SPACE.definition,
        classes=CLASSES,
        options=profile_options,
        table=lambda wildcards, input: ["--table", *input.table] if input.table else [],
    # All cores, although one may do: no other job disturbs the measurement.
    threads: workflow.cores
    resources:
        gpu=lambda wildcards: int(CONFIG["latency"][wildcards.target].get("device") == "cuda"),
    conda:
        "../envs/fbnet.yaml"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/profile_latency.py --space {SPACE_FILE:q} --classes {params.classes}"
        " {params.options:q} {params.table:q} --out {output:q} --log {log:q}"
