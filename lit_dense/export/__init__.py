"""Export of a trained detector to one file that computes boxes, scores and labels from an image."""
