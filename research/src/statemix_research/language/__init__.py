"""Language models: the text that they are compared on, and which models are compared how."""
