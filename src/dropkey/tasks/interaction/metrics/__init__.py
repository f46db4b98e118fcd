"""Average precision of human-object interaction detection: HICO-DET's and V-COCO's, in NumPy.

Example:
    >>> import numpy as np
    >>> person, cup = [[10, 10, 60, 110]], [[50, 60, 70, 80]]
    >>> truth = Pairs([0], person, cup, objects=[3], verbs=[1])
    >>> predictions = Pairs([0], person, cup, objects=[3], verbs=[1], scores=[0.9])
    >>> hico_det_ap(truth, predictions, triplets=[(1, 3)]).full
    1.0
"""

from dropkey.tasks.interaction.metrics.hico_det import HicoDetAP, hico_det_ap
from dropkey.tasks.interaction.metrics.pairs import Pairs
from dropkey.tasks.interaction.metrics.vcoco import Persons, RoleAP, vcoco_role_ap

__all__ = ["HicoDetAP", "Pairs", "Persons", "RoleAP", "hico_det_ap", "vcoco_role_ap"]
