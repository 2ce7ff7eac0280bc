"""Worker processes that die at a chosen commit, a scenario that uses every feature, and what must hold whatever died when."""
