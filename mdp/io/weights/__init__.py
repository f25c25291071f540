"""Weights files of other projects: reading without executing, recognising, loading into our networks."""
