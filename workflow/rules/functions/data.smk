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
def images_of_folder():
    """How many images the halves of the configured folder have; it is looked through once."""
    return {half: len(files) for half, files in survey(Path(CONFIG["dataset"]["folder"])).files.items()}


def training_images():
    """How many images there are to train on."""
    return TRAINING_IMAGES.get(CONFIG["dataset"]["name"]) or images_of_folder()["train"]


def resources_to_prepare():
    """On a cluster, what an image folder takes: time for photographs on a network file system, and memory of the processes."""
    if CONFIG["dataset"]["name"] != "image_folder":
        return {}
    minutes = lambda wildcards, threads: 10 + math.ceil(sum(images_of_folder().values()) * SECONDS_PER_IMAGE / threads / 60)
    return {"runtime": minutes, "mem_mb": lambda wildcards, threads, attempt: (1000 + 500 * threads) * attempt}
