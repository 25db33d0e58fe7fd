"""What all runs have come to: a database of runs, devices, firmware, measurements, findings and artifacts."""
