"""Long runs of the loader, and processes that lose their parent or their peer."""
