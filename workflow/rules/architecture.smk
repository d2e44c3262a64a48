# From a trained supernet to architectures and their model definitions.


include: "functions/architecture.smk"


JUDGED = int(CONFIG["sample"]["judged"] > CONFIG["sample"]["count"])  # whether architectures are judged inside the supernet


rule sample_architecture:
    input:
        supernet=in_supernet("supernet.pt"),
        table=latency_table,
        others=other_tables,
        arrays=ancient(rules.train_supernet.input.arrays) if JUDGED else [],
        data=rules.download_cifar.output.description if JUDGED else [],
    output:
        SAMPLES,
    log:
        f"{RESULTS}/logs/sample_architecture/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample_architecture/{{search}}.tsv"
    group:
        "architectures" if not RACE["epochs"] else "samples"
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"] if JUDGED else 1
    resources:
        **node_resources(),
        gpu=lambda wildcards: min(CONFIG["searches"][wildcards.search]["gpu"], JUDGED),
    params:
        **program("sample_architecture.py"),
        data=lambda wildcards, input: [f"--data={Path(input.data).parent}"] if JUDGED else [],
        options=[f"--{key}={value}" for key, value in CONFIG["sample"].items()],
        race=[f"--entrants={RACE['entrants']}", "--rules", *RACE["rules"]] if RACE["epochs"] else [],
        budget=budget_options,
    shell:
        "{params.run} --supernet {input.supernet:q} --table {input.table:q}"
        " {params.options:q} {params.race:q} {params.data:q} --threads {threads} {params.budget[options]:q} --name {wildcards.search} --out {output:q} --log {log:q}"


rule export_modeldef:
    input:
        architectures=f"{RESULTS}/architectures/{{search}}.tsv",
        supernet=in_supernet("supernet.pt"),
    output:
        python=f"{RESULTS}/modeldef/{{search}}.py",
        json=f"{RESULTS}/modeldef/{{search}}.json",
    log:
        f"{RESULTS}/logs/export_modeldef/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export_modeldef/{{search}}.tsv"
    group:
        "architectures"
    conda:
        "../envs/fbnet.yaml"
    resources:
        **node_resources(),
    params:
        **program("export_modeldef.py"),
    shell:
        "{params.run}"
        " --architectures {input.architectures:q} --supernet {input.supernet:q} --out {output.python:q} --log {log:q}"


# The first architecture of a search, with weights inherited from the supernet, or those of the race that it has won. Where timm
# can express it, this and the rules like it also write .timm.safetensors; that is no output, since it depends on what was found.
rule export_model:
    input:
        definition=f"{RESULTS}/modeldef/{{search}}.json",
        weights=f"{RESULTS}/race/{{search}}/network.pt" if RACE["epochs"] else in_supernet("supernet.pt"),
        table=latency_table,
        arrays=ancient(rules.train_supernet.input.arrays),
        data=rules.download_cifar.output.description,
    output:
        multiext(f"{RESULTS}/models/{{search}}", program=".pt2", onnx=".onnx", weights=".safetensors", card=".md"),
    log:
        f"{RESULTS}/logs/export_model/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export_model/{{search}}.tsv"
    group:
        "architectures"
    conda:
        "../envs/fbnet.yaml"
    resources:
        **node_resources(),
    params:
        **program("export_model.py"),
        data=lambda wildcards, input: Path(input.data).parent,
        network=network_options,
    shell:
        "{params.run} {params.network:q} --data {params.data:q} --table {input.table:q} --out {output.onnx:q} --log {log:q}"


# What the chosen architecture costs of each budget, which of them binds, the runner-up, and what more of each would buy.
rule explain_choice:
    input:
        supernet=in_supernet("supernet.pt"),
        table=latency_table,
        others=other_tables,
        architectures=f"{RESULTS}/architectures/{{search}}.tsv",
        arrays=ancient(rules.train_supernet.input.arrays),
        data=rules.download_cifar.output.description,
    output:
        f"{RESULTS}/choice/{{search}}.tsv",
    log:
        f"{RESULTS}/logs/explain_choice/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/explain_choice/{{search}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=lambda wildcards: min(CONFIG["searches"][wildcards.search]["gpu"], 1),
    params:
        **program("explain_choice.py"),
        data=lambda wildcards, input: Path(input.data).parent,
        budget=budget_options,
    shell:
        "{params.run} --supernet {input.supernet:q} --table {input.table:q} --architectures {input.architectures:q}"
        " --data {params.data:q} {params.budget[options]:q} --threads {threads} --out {output:q} --log {log:q}"


# A published network, with random weights: snakemake results/zoo/fbnet_c.onnx
rule export_published:
    output:
        multiext(f"{RESULTS}/zoo/{{published}}", program=".pt2", onnx=".onnx", weights=".safetensors", card=".md"),
    log:
        f"{RESULTS}/logs/export_published/{{published}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export_published/{{published}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("export_model.py"),
        architecture=published_architecture,
    shell:
        "{params.run} --arch {wildcards.published} --out {output.onnx:q} --log {log:q}"
