"""Weights to scores: answers, calibration, trust, exposure, baselines and the report."""
