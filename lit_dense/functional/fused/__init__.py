"""From logits to a value for each anchor, in chunks that fit a cache or in one compiled kernel."""
