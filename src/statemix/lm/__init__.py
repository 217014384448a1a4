"""Language models: evaluated and asked for text."""
