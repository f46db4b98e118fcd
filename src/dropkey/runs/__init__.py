"""What every run needs and no task: options, folder, checkpoints, record, training, summary."""
