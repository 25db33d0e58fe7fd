"""Images of the application processor, from one specification: see docs/ar1-images.md."""
