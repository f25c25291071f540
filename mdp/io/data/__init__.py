"""From datasets to batches: which images, in which order, cut how, by which workers."""
