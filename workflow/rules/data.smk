# The dataset, verified, as arrays.


include: "functions/data.smk"


rule download_cifar:
    input:
        CONFIG["dataset"]["archive"] or [],
    output:
        # The description seals the arrays and is written last.
        f"{DATA}/train_images.npy",
        f"{DATA}/train_labels.npy",
        f"{DATA}/test_images.npy",
        f"{DATA}/test_labels.npy",
        description=f"{DATA}/dataset.json",
    log:
        f"{RESULTS}/logs/download_cifar/{CONFIG['dataset']['name']}.log",
    benchmark:
        f"{RESULTS}/benchmarks/download_cifar/{CONFIG['dataset']['name']}.tsv"
    priority: 3  # before all cores are taken for measuring: a mirror that is dead tells so at once
    localrule: CONFIG["dataset"]["name"] != "image_folder"  # nodes of a cluster rarely reach the internet
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"] if CONFIG["dataset"]["name"] == "image_folder" else 1
    resources:
        **resources_to_prepare(),
    params:
        **program("download_cifar.py"),
        name=CONFIG["dataset"]["name"],
        options=source_options(),
        out=lambda wildcards, output: Path(output.description).parent,
    shell:
        "{params.run} --name {params.name} {params.options:q} --threads {threads} --out {params.out:q} --log {log:q}"
