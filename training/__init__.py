"""What `train.py` calls: recipes, batches, optimizers, the loop, checkpoints and the stages of a run."""
