"""A weighter that lowers the weight of background far from objects."""
