# The dataset, verified, as arrays.


def source_options():
    """The settings that the configured kind of dataset depends on, as options of the script."""
    dataset = CONFIG["dataset"]
    if dataset["name"] == "cifar10":
        keys = ["folder"] if dataset["folder"] else ["archive" if dataset["archive"] else "url", "checksum"]
        settings = {key: dataset[key] for key in keys if dataset[key] is not None}
    else:
        settings = {"resolution": SPACE.resolution}
        if dataset["name"] == "image_folder":
            settings["folder"] = dataset["folder"]
    return [f"--{key}={value}" for key, value in settings.items()]


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
    params:
        code=code("download_cifar.py"),
        name=CONFIG["dataset"]["name"],
        options=source_options(),
    conda:
        "../envs/fbnet.yaml"
    shell:
        "{PYTHON:q} {SCRIPTS:q}/download_cifar.py --name {params.name} {params.options:q} --out {DATA:q} --log {log:q}"
