# The dataset, verified, as arrays.


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
    conda:
        "../envs/fbnet.yaml"
    params:
        code=code("download_cifar.py"),
        name=CONFIG["dataset"]["name"],
        options=source_options(),
        out=lambda wildcards, output: Path(output.description).parent,
    shell:
        "python -m download_cifar --name {params.name} {params.options:q} --out {params.out:q} --log {log:q}"
