"""What a run tells while it goes: lines for people, records in files, events for TensorBoard."""
