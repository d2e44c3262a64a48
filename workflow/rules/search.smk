# The search itself.


def search_settings(wildcards):
    """What the training of one search depends on: its settings, without the target and the unused form of the loss."""
    settings = {key: value for key, value in CONFIG["searches"][wildcards.search].items() if key != "target"}
    keys = {"paper": ("form", "alpha", "beta"), "target": ("form", "target_us", "weight")}
    loss = settings["loss"]
    return json_of(settings | {"loss": {key: loss[key] for key in keys[loss["form"]]}})


def search_table(wildcards):
    """The latency table of a search's target."""
    return f"{RESULTS}/latency/{CONFIG['searches'][wildcards.search]['target']}.tsv"


rule train_supernet:
    input:
        # The description holds the arrays' hashes: they need only be there.
        arrays=ancient([f for f in rules.download_cifar.output if f.endswith(".npy")]),
        data=rules.download_cifar.output.description,
        table=search_table,
    output:
        # The checkpoint and tensorboard/ beside them are no outputs: Snakemake would delete those after a failure.
        supernet=f"{RESULTS}/search/{{search}}/supernet.pt",
        theta=f"{RESULTS}/search/{{search}}/theta.tsv",
        history=f"{RESULTS}/search/{{search}}/history.tsv",
    log:
        f"{RESULTS}/logs/train_supernet/{{search}}.log",
    params:
        code=code("train_supernet.py"),
        space=SPACE.definition,
        settings=search_settings,
        out=f"{RESULTS}/search/{{search}}",
    threads: 8
    resources:
        gpu=1,
    conda:
        "../envs/fbnet.yaml"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/train_supernet.py --data {DATA:q} --space {SPACE_FILE:q} --table {input.table:q}"
        " --settings {params.settings:q} --threads {threads} --out {params.out:q} --log {log:q}"
