"""The API gateway: one door to many services."""
