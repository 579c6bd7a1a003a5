"""What attention heads can and cannot do: section 2 of the practical, runnable, and the same on a trained model."""
