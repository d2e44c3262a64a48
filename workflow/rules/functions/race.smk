# Who takes part in which round of a race, and how they are trained.

FIRST, LEARNED = RACE["entrants"], RACE["learned"]  # entrants, and those that are chosen when these are trained
FIELDS = [math.ceil((FIRST + LEARNED) / 2**number) for number, _ in enumerate(RACE["epochs"])]  # how many take part in each round


def networks_of_round(wildcards, number):
    """What the entrants of a round, from 1, are when it is over."""
    return [f"{RESULTS}/race/{wildcards.search}/round_{number}/{place}/network.pt" for place in range(1, FIELDS[number - 1] + 1)]


def first_networks(wildcards):
    """What the first entrants are after the first round."""
    return networks_of_round(wildcards, 1)[:FIRST]


def entrants_of_round(wildcards):
    """Where the architecture of a place in the first round stands."""
    if wildcards.round != "1":
        return []
    return SAMPLES if int(wildcards.place) <= FIRST else rules.learn_entrants.output


def start_of_round(wildcards):
    """The supernet whose weights entrants start from in the first round, if they do."""
    starts = wildcards.round == "1" and RACE["start"] == "supernet"
    return in_supernet("supernet.pt")(wildcards) if starts else []


def networks_before(wildcards):
    """All networks of the round before, of which the better half goes on."""
    number, place = int(wildcards.round), int(wildcards.place)
    if not (1 <= number <= len(FIELDS) and 1 <= place <= FIELDS[number - 1]):
        raise WorkflowError(f"round {number} of the race has no place {place}; entrants of its rounds: {FIELDS}")
    return networks_of_round(wildcards, number - 1) if number > 1 else []


def entrant_options(wildcards, input):
    """Which architecture takes a place: in the first round that of its row, then that of this place in the round before."""
    if input.among:
        return ["--among", *input.among, f"--place={wildcards.place}"]
    name = f"{wildcards.search}_{wildcards.place}"
    return [f"--name={name}", f"--architectures={input.architectures}", f"--row={name}"]


def round_settings(wildcards):
    """The settings of a round's training: those of `train`, with a warm-up of the same share.

    No teacher: entrants are compared by what they learn of the labels, in rounds too short for the cost of a large network.
    """
    train, epochs = CONFIG["train"], RACE["epochs"][int(wildcards.round) - 1]
    warmup = train["warmup_epochs"] / train["epochs"] * epochs
    own = {"epochs": epochs, "warmup_epochs": warmup, "start": RACE["start"], "teacher": 0, "schedule": "cosine", "drops": []}
    return json_of(train | own)


def round_seed(wildcards):
    """The seed of a round's trainings: another for each search and round, and none of the evaluation's."""
    return 1000 * (1 + CONFIG["searches"][wildcards.search]["seed"]) + int(wildcards.round)


def all_entrants(wildcards):
    """Where all architectures that take part stand."""
    return [SAMPLES, *(rules.learn_entrants.output if LEARNED else [])]


def round_options(wildcards):
    """The networks of all rounds, as options of a script."""
    numbers = range(1, len(FIELDS) + 1)
    return [option for number in numbers for option in ("--round", *networks_of_round(wildcards, number))]
