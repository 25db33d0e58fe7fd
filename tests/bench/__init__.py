"""Measurements, apart from the tests: ratios in one run, medians of several rounds, with the machine named."""
