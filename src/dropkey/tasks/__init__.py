"""What can be trained: one LightningModule a task, and what a run needs around it."""
