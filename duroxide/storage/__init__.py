"""Stores: one contract (base), several backends that never import each other."""
