"""How a trained model is judged: its answers, the baselines beside them, and the report."""
