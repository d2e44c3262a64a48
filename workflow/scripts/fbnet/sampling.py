"""Draw architectures from theta."""

import numpy as np

from fbnet.space import SearchSpace


def draw(space: SearchSpace, theta, method: str, count: int = 1, seed: int = 0) -> list[tuple[tuple[str, ...], float]]:
    """Architectures and their log-probability Σ log softmax(theta), the most probable first, each once.

    `theta`: a logit per candidate for each searched layer. "argmax" gives the most probable one; "softmax" draws `count`
    times, layer by layer (FBNet, section 3.3), so that fewer than `count` may remain.
    """
    log_probs = []
    for logits in theta:
        logits = np.asarray(logits, dtype=np.float64)
        shifted = logits - logits.max()
        log_probs.append(shifted - np.log(np.exp(shifted).sum()))
    if method == "argmax":
        picks = {tuple(int(row.argmax()) for row in log_probs)}
    else:
        rng = np.random.default_rng(seed)
        picks = {tuple(int(rng.choice(len(row), p=np.exp(row))) for row in log_probs) for _ in range(count)}
    drawn = [
        (
            tuple(layer[i].op for layer, i in zip(space.layers, pick, strict=True)),
            float(sum(row[i] for row, i in zip(log_probs, pick, strict=True))),
        )
        for pick in picks
    ]
    return sorted(drawn, key=lambda item: (-item[1], item[0]))
