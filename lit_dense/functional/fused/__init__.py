"""The mechanism behind every loss: values and gradients in one pass over the logits, chunk by chunk."""
