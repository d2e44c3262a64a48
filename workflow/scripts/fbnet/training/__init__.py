"""What all training runs share: the loop, its checkpoints, several processes.

Stands on data.
"""

from fbnet.training.checkpoint import fingerprint, made_by_another
from fbnet.training.loop import Loop
from fbnet.training.ranks import Ranks, launch
from fbnet.training.replay import Replay

__all__ = ["Loop", "Ranks", "Replay", "fingerprint", "launch", "made_by_another"]
