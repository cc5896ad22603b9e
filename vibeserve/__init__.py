"""VibeServe: an evolutionary search engine on Ray that generates bespoke LLM serving systems."""

__version__ = "0.1.0"
