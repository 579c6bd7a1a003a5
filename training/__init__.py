"""Batches to weights: the runner of a recipe, the training loop, optimizers and checkpoints."""
