"""What happens at a site: one file for each regularizer, which does its own work there."""
