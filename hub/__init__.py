"""Publishing on the Hugging Face Hub: models, data sets and their cards."""
