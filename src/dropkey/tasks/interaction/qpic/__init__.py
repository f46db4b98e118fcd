"""QPIC: one query of a DETR finds one pair (Tamura et al., CVPR 2021)."""
