"""Object detection with transformers' DETRs."""
