"""Human-object interaction: who does what with which object."""
