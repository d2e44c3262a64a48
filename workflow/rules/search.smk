# The search itself.


include: "functions/search.smk"


rule train_supernet:
    input:
        # The description holds the arrays' hashes: they need only be there.
        arrays=ancient([f for f in rules.download_cifar.output if f.endswith(".npy")]),
        data=rules.download_cifar.output.description,
        table=search_table,
        validation=ancient(search_validation),
    output:
        # The checkpoint and tensorboard/ beside them are no outputs: Snakemake would delete those after a failure.
        supernet=f"{RESULTS}/search/{{supernet}}/supernet.pt",
        theta=f"{RESULTS}/search/{{supernet}}/theta.tsv",
        history=f"{RESULTS}/search/{{supernet}}/history.tsv",
    log:
        f"{RESULTS}/logs/train_supernet/{{supernet}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_supernet/{{supernet}}.tsv"
    priority: 1  # the longest way to the report leads through it
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=lambda wildcards: CONFIG["searches"][TRAINED_FOR[wildcards.supernet]]["gpu"],
    params:
        **program("train_supernet.py"),
        space=json_of(SPACE.definition),
        data=lambda wildcards, input: Path(input.data).parent,
        table=table_options,
        settings=search_settings,
        aim=aim_options,
        strict=strict_options,
        out=lambda wildcards, output: Path(output.supernet).parent,
        checkpoint_minutes=untracked(CONFIG["checkpoint_minutes"]),
    shell:
        "{params.run} --data {params.data:q} --space {params.space:q}"
        " {params.table:q} {params.strict:q} {params.aim[options]:q} --settings {params.settings:q} --threads {threads}"
        " --checkpoint-minutes {params.checkpoint_minutes} --out {params.out:q} --log {log:q}"


# Before days are spent: how large the space is, and what its supernets will cost where this runs: snakemake describe_space --cores 8
rule describe_space:
    output:
        f"{RESULTS}/space.txt",
    log:
        f"{RESULTS}/logs/describe_space/space.log",
    benchmark:
        f"{RESULTS}/benchmarks/describe_space/space.tsv"
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=max(min(search["gpu"], 1) for search in CONFIG["searches"].values()),
    params:
        **program("describe_space.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        images=lambda wildcards: training_images(),
        tables=untracked(tables_there()),
        supernets=all_supernets(),
    shell:
        "{params.run} --space {params.space:q} --classes {params.classes} --images {params.images}"
        " --table {params.tables:q} {params.supernets:q} --threads {threads} --out {output:q} --log {log:q}"
