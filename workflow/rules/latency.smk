# Latency of every operator on the target device.


include: "functions/latency.smk"


# With one target the rule has no wildcard, so that it can be named on the command line: `snakemake profile_latency`.
TARGET = next(iter(CONFIG["latency"])) if len(CONFIG["latency"]) == 1 else "{target}"


rule profile_latency:
    input:
        table=own_table,
    output:
        # The folder of the same name is no output: it keeps the table in use, which Snakemake removes before the rule runs.
        table=f"{RESULTS}/latency/{TARGET}.tsv",
    log:
        f"{RESULTS}/logs/profile_latency/{TARGET}.log",
    benchmark:
        f"{RESULTS}/benchmarks/profile_latency/{TARGET}.tsv"
    priority: 2  # before a search starts
    group:
        "latency"
    conda:
        "../envs/fbnet.yaml"
    # All cores, although one may do: no other job disturbs the measurement.
    threads: workflow.cores
    resources:
        **node_resources(),
        gpu=gpus_to_measure,
    params:
        **program("profile_latency.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        options=target_options,
        effort=effort_options,
        table=file_option("table", "table"),
        history=lambda wildcards, output: output.table.removesuffix(".tsv"),
        new_measurement=untracked(CONFIG["new_measurement"]),
    shell:
        "{params.run} --space {params.space:q} --classes {params.classes} {params.options:q}"
        " {params.effort:q} {params.table:q}"
        " --history {params.history:q} --new-measurement {params.new_measurement} --out {output.table:q} --log {log:q}"


rule plot_latency:
    input:
        rules.profile_latency.output.table,
    output:
        report(f"{RESULTS}/latency/{TARGET}.svg", category="Latency", caption="../report/heat_map.rst"),
    log:
        f"{RESULTS}/logs/plot_latency/{TARGET}.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_latency/{TARGET}.tsv"
    group:
        "latency"
    conda:
        "../envs/fbnet.yaml"
    resources:
        **node_resources(),
    params:
        **program("plot_latency.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
    shell:
        "{params.run} --table {input:q} --space {params.space:q} --classes {params.classes} --out {output:q} --log {log:q}"


# The table against whole networks, measured on the same device; the summary judges whether its error is too large.
rule validate_latency:
    input:
        table=rules.profile_latency.output.table,
        measured=own_validation,
    output:
        validation=f"{RESULTS}/latency/{TARGET}.validation.tsv",
        plot=report(f"{RESULTS}/latency/{TARGET}.validation.svg", category="Latency", caption="../report/validation.rst"),
    log:
        f"{RESULTS}/logs/validate_latency/{TARGET}.log",
    benchmark:
        f"{RESULTS}/benchmarks/validate_latency/{TARGET}.tsv"
    priority: 2  # before a search starts
    group:
        "latency"
    conda:
        "../envs/fbnet.yaml"
    threads: workflow.cores
    resources:
        **node_resources(),
        gpu=gpus_to_measure,
    params:
        **program("validate_latency.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        options=target_options,
        effort=validation_options,
        measured=file_option("measured", "measured"),
    shell:
        "{params.run} --table {input.table:q} --space {params.space:q} --classes {params.classes}"
        " {params.options:q} {params.effort:q} {params.measured:q}"
        " --out {output.validation:q} --plot {output.plot:q} --log {log:q}"
