"""Measuring a trained network: metrics, calibration, out-of-distribution score, heat maps."""
