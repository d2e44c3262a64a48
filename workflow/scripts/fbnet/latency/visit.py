"""What is done with a network when its turn has come: in one go, so that in a process of its own nothing runs in between."""

UNTIMED = 3  # inferences before a network's latency is taken: small networks come to rest in the cache,
AT_REST_US = 10_000  # and one that takes longer than this is at rest after the first


def warm_us(network) -> float:
    """µs of one inference after others of the same network."""
    for _ in range(UNTIMED):
        if network.time() > AT_REST_US:
            break
    return network.time()


def warm_twice(network) -> list[float]:
    """µs of two inferences after others."""
    return [warm_us(network), network.time()]


def laps_and_whole(network) -> tuple[list[list[float]], float]:
    """µs of each cell in some inferences after another, and then of a whole one."""
    network.time()
    return [network.laps() for _ in range(UNTIMED - 1)], network.time()
