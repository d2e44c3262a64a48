"""What the search minimises: latency-aware cross-entropy."""

from collections.abc import Callable

from torch import Tensor

from fbnet.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def paper_loss(alpha: float, beta: float) -> Loss:
    """CE · α · log(LAT)^β, LAT in µs (FBNet, eq. 2; β stands outside the logarithm, where it has an effect)."""
    return lambda ce, latency_us: ce * alpha * latency_us.log() ** beta


def target_loss(target_us: float, weight: float) -> Loss:
    """CE + weight · |LAT/target − 1|: free of units, least at the wished latency (TuNAS, Bender et al. 2020)."""
    return lambda ce, latency_us: ce + weight * (latency_us / target_us - 1).abs()


def make_loss(settings: dict, least_us: float, most_us: float) -> Loss:
    """The loss of a search's settings {form, ...}, for networks that take between `least_us` and `most_us`.

    Raises InputError where it would be undefined, or where no network of the space comes near the target.
    """
    if settings["form"] == "paper":
        if least_us <= 1:
            raise InputError(
                f"loss.form 'paper' takes the logarithm of the latency in µs, but the table's fastest network takes "
                f"{least_us:.3g} µs: give the table's latencies in µs, or choose loss.form 'target'"
            )
        return paper_loss(settings["alpha"], settings["beta"])
    target_us = settings["target_us"]
    if target_us is None:
        raise InputError("neither loss.target_us nor latency_budget is set, but loss.form 'target' needs one: give a latency")
    if not least_us <= target_us <= most_us:
        raise InputError(
            f"the loss aims at {target_us:.4g} µs (loss.target_us, or the latency_budget), but by the latency table the "
            f"networks of this space take between {least_us:.0f} and {most_us:.0f} µs: choose a target between them"
        )
    return target_loss(target_us, settings["weight"])
