"""Development programs: generators of data, documentation builds, and test campaigns."""
