"""Words that every room shares: types, geometry, protocols, checks, settings and errors."""
