"""The failure laboratory: what a network, a server and its other users can do to a store on PostgreSQL."""
