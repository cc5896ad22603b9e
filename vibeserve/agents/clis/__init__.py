"""Coding agents' command lines that write servers: one module per CLI, and what runs them all alike."""
