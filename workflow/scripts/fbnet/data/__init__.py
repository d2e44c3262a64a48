"""Images: where they come from, how they lie on disk, how they come in batches.

Stands on the ground alone. What is handed on here does without torch and NumPy.
"""

from fbnet.data.survey import TRAINING_IMAGES, dataset_classes, prepared, refusal, survey

__all__ = ["TRAINING_IMAGES", "dataset_classes", "prepared", "refusal", "survey"]
