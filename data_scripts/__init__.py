"""Where text becomes a `datasets.Dataset`: biographies, corrupted biographies, and questions about birthplaces."""
