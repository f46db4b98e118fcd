"""A task made by the steps of CONTRIBUTING: regress the mean gray level of an image."""
