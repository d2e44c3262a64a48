# Latency of every operator on the target device.

# With one target the rule has no wildcard, so that it can be named on the command line: `snakemake profile_latency`.
TARGET = next(iter(CONFIG["latency"])) if len(CONFIG["latency"]) == 1 else "{target}"


rule profile_latency:
    input:
        table=own_table,
    output:
        f"{RESULTS}/latency/{TARGET}.tsv",
    log:
        f"{RESULTS}/logs/profile_latency/{TARGET}.log",
    conda:
        "../envs/fbnet.yaml"
    # All cores, although one may do: no other job disturbs the measurement.
    threads: workflow.cores
    resources:
        gpu=lambda wildcards: int(target_of(wildcards).get("device") == "cuda"),
    params:
        code=code("profile_latency.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        options=profile_options,
        table=lambda wildcards, input: [f"--table={input.table}"] if input.table else [],
    shell:
        "python -m profile_latency --space {params.space:q} --classes {params.classes}"
        " {params.options:q} {params.table:q} --out {output:q} --log {log:q}"
