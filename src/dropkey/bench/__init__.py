"""What ``dropkey bench`` runs: time and memory of attention and of training steps, side by side on this machine."""
