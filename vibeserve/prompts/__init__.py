"""What models are told: one template per prompt, and the facts that fill it."""
