"""What the parts stand on: samples, the base of parts, names, sums over processes, errors."""
