"""From sources to images."""
