# What the dataset depends on, and what it takes to prepare it.

SECONDS_PER_IMAGE = 0.03  # to read, decode and scale one of several megapixels


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
    # Several urls, which are mirrors, are as many options.
    return [f"--{key}={each}" for key, value in settings.items() for each in (value if isinstance(value, list) else [value])]


@functools.cache
def images_to_prepare():
    """How many images the configured folder has; it is looked through once."""
    return sum(map(len, survey(Path(CONFIG["dataset"]["folder"])).files.values()))


def resources_to_prepare():
    """On a cluster, what an image folder takes: time for photographs on a network file system, and memory of the processes."""
    if CONFIG["dataset"]["name"] != "image_folder":
        return {}
    minutes = lambda wildcards, threads: 10 + math.ceil(images_to_prepare() * SECONDS_PER_IMAGE / threads / 60)
    return {"runtime": minutes, "mem_mb": lambda wildcards, threads, attempt: (1000 + 500 * threads) * attempt}
