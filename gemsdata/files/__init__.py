"""How files are written whole, cached and read ahead."""
