"""A network that is to be exported, with what is known of its weights."""

from dataclasses import dataclass, field

from torch import nn

from fbnet.space import Architecture


@dataclass(frozen=True)
class Model:
    """An architecture's network; `facts` are rows of its card, of which `weights` says where they come from.

    `preprocessing` says in words what images must have gone through, `classes` are the names of the logits, where known.
    """

    architecture: Architecture
    network: nn.Module
    facts: dict[str, str]
    preprocessing: str
    classes: list[str] = field(default_factory=list)
