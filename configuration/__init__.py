"""What to run: the recipe's schema and reader, the errors that a user sees, and how large a model is."""
