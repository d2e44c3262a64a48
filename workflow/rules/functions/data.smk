# What the dataset depends on.


def source_options():
    """The settings that the configured kind of dataset depends on, as options of the script."""
    dataset = CONFIG["dataset"]
    if dataset["name"] == "cifar10":
        keys = ["folder"] if dataset["folder"] else ["archive" if dataset["archive"] else "url", "checksum"]
        settings = {key: dataset[key] for key in keys if dataset[key] is not None}
    else:
        settings = {"resolution": SPACE.resolution}
        if dataset["name"] == "image_folder":
            settings |= {"folder": dataset["folder"], "broken": dataset["broken"]}
    return [f"--{key}={value}" for key, value in settings.items()]
