"""Self-contained HTML pages: no script, nothing loaded, light and dark."""
